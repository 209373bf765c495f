"""model/one_row.py against float64 NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from model.one_row import matrix_times_column, row_times_matrix

# Multiples of 16, of a smaller power of two, and of none.
WIDTHS = [48, 16, 20, 7]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [np.int8, np.float32])
def test_a_row_times_a_matrix(dtype, width, compiled):
    floats, matrix = drawn(width, [width, 5])
    row, matrix = floats[None], matrix.astype(dtype)
    product = tf.function(row_times_matrix, jit_compile=compiled)
    near(product(tf.constant(row), tf.constant(matrix)), row.astype(float) @ matrix.astype(float))


def test_the_gradient_of_a_product_with_floats_is_that_of_a_plain_one():
    floats, matrix = drawn(48, [48, 5])
    row, matrix = tf.constant(floats[None]), tf.constant(matrix, tf.float32)
    upstream = tf.constant([[1.0, -2.0, 3.0, -4.0, 5.0]])
    with tf.GradientTape() as tape:
        tape.watch([row, matrix])
        product = row_times_matrix(row, matrix)
    d_row, d_matrix = tape.gradient(product, [row, matrix], output_gradients=upstream)
    near(d_row, upstream.numpy().astype(float) @ matrix.numpy().T)
    near(d_matrix, floats[:, None].astype(float) @ upstream.numpy())


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_matrix_times_a_column(width, compiled):
    column, matrix = drawn(width, [5, width])
    product = tf.function(matrix_times_column, jit_compile=compiled)
    near(
        product(tf.constant(matrix), tf.constant(column)),
        matrix.astype(float) @ column.astype(float),
    )


def drawn(width: int, shape: list[int]) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(width)
    floats = generator.standard_normal(width).astype(np.float32)
    return floats, generator.integers(-127, 128, shape).astype(np.int8)


def near(found: tf.Tensor, expected: np.ndarray) -> None:
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
