"""model/linear.py against float64 NumPy."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from model.kept import given, keeping
from model.linear import linear


def dense(inputs: int, units: int, dtype: str = "float32") -> keras.layers.Dense:
    layer = keras.layers.Dense(units, bias_initializer="random_normal", dtype=dtype)
    layer.build((None, inputs))
    return layer


def expected(layer: keras.layers.Dense, x: np.ndarray) -> np.ndarray:
    return x.astype(float) @ np.array(layer.kernel, float) + np.array(layer.bias, float)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 48), (2, 3, 48), (1, 48), (1, 1, 48)])
def test_it_is_the_affine_map_of_the_layer(shape):
    layer, x = dense(48, 5), random(*shape)
    np.testing.assert_allclose(linear(layer, tf.constant(x)), expected(layer, x), atol=1e-5)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_backward_pass_is_given_the_product(rows):
    layer, x = dense(48, 5), tf.constant(random(rows, 48))
    with keeping() as kept:
        linear(layer, x, keep=True)
    (product,) = kept
    np.testing.assert_allclose(product + layer.bias, expected(layer, x.numpy()), atol=1e-5)
    with tf.GradientTape() as tape, given([product + 1]):
        tape.watch(x)
        y = linear(layer, x, keep=True)
    np.testing.assert_allclose(y, expected(layer, x.numpy()) + 1, atol=1e-5)
    d_x = np.ones([rows, 5]) @ np.array(layer.kernel, float).T
    np.testing.assert_allclose(tape.gradient(y, x), d_x, atol=1e-5)


def test_xla_makes_parts_of_the_sums_of_one_row():
    layer = dense(48, 5)
    program = tf.function(lambda x: linear(layer, x), jit_compile=True)
    hlo = program.experimental_get_compiler_ir(tf.constant(random(1, 48)))(stage="optimized_hlo")
    assert len(re.findall(r"f32\[8,5\]\S* dot\(", hlo)) == 1


def test_in_16_bits_a_product_of_one_row_is_rounded_once():
    layer = dense(16, 1, "bfloat16")
    # Parts of two terms would be 257, rounded to 256, and -256.
    layer.kernel.assign([[256.0], [1.0], [-256.0], *[[0.0]] * 13])
    layer.bias.assign([0.0])
    assert float(linear(layer, tf.ones([1, 16], tf.bfloat16))[0, 0]) == 1
