"""model/recompute.py: the values and gradients of a plain call, with the inside made twice."""

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from model import TransformerBlock
from model.recompute import recomputed
from tests.small_models import randomize

# Shapes: B batch, T positions, D embedding width.
B, T, D = 2, 7, 12
LAYERS = 2
DOCUMENTS_BT = tf.constant([[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 2, 2, 2]])

Run = Callable[[tf.Tensor], list[tf.Tensor]]


def blocks_of(dropout: float, dtype: str = "float32") -> list[TransformerBlock]:
    blocks = [TransformerBlock(D, 3, 20, dropout, dtype=dtype) for _ in range(LAYERS)]
    for index, block in enumerate(blocks):
        block.build((None, None, D))
        randomize(block, seed=index)
    return blocks


def gradients_of(blocks: list[TransformerBlock], recompute: bool) -> Run:
    """What makes the blocks' output and its gradients to the input and all weights.

    Dropout's masks are those of fixed seeds.
    """
    seeds = [v for block in blocks for v in block.variables if not v.trainable]
    assert len(seeds) in (0, 3 * LAYERS)

    def run(x_BTD: tf.Tensor) -> list[tf.Tensor]:
        numbers = [tf.constant([index, 1], tf.uint32) for index in range(len(seeds))]
        sources = [x_BTD, *(v.value for block in blocks for v in block.trainable_variables)]
        with (
            keras.StatelessScope(list(zip(seeds, numbers, strict=True))),
            tf.GradientTape() as tape,
        ):
            tape.watch(x_BTD)
            y_BTD = x_BTD
            for block in blocks:
                arguments = {"documents_BT": DOCUMENTS_BT, "training": True}
                if recompute:
                    y_BTD = recomputed(block, y_BTD, **arguments)
                else:
                    y_BTD = block(y_BTD, **arguments)
            loss = tf.reduce_sum(tf.sin(tf.cast(y_BTD, tf.float32)))
        return [y_BTD, *tape.gradient(loss, sources)]

    return run


def random_input(dtype: str = "float32") -> tf.Tensor:
    x_BTD = np.random.default_rng(0).standard_normal((B, T, D))
    return tf.cast(x_BTD, dtype)


MODES: dict[str, Callable[[Run], Run]] = {
    "eager": lambda function: function,
    "graph": tf.function,
    "xla": lambda function: tf.function(function, jit_compile=True),
}


@pytest.mark.parametrize("mode", MODES)
def test_outputs_and_gradients_are_those_of_a_plain_call_with_the_same_masks(mode):
    blocks = blocks_of(dropout=0.5)
    plain = MODES[mode](gradients_of(blocks, recompute=False))(random_input())
    again = MODES[mode](gradients_of(blocks, recompute=True))(random_input())
    assert len(plain) == 2 + 12 * LAYERS
    for found, expected in zip(again, plain, strict=True):
        largest = np.abs(expected).max()
        assert largest > 0
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * largest)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_in_16_bits_too(dtype):
    blocks = blocks_of(0.5, dtype)
    x_BTD = random_input(blocks[0].compute_dtype)
    plain = tf.function(gradients_of(blocks, recompute=False))(x_BTD)
    again = tf.function(gradients_of(blocks, recompute=True))(x_BTD)
    for found, expected in zip(again, plain, strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(tf.cast(found, tf.float32), tf.cast(expected, tf.float32))


def compiled(recompute: bool) -> str:
    """The program that XLA makes of forward and backward pass, after all its optimisations."""
    run = tf.function(gradients_of(blocks_of(0.0), recompute), jit_compile=True)
    x_BTD = random_input()
    return run.experimental_get_compiler_ir(x_BTD)(stage="optimized_hlo")


def test_the_compiler_makes_each_blocks_inside_twice():
    # A block's forward pass has 6 products, its backward pass 12. The second forward pass needs
    # all but the last product, whose outcome no gradient depends on.
    tanh = re.compile(r" tanh\(")
    product = re.compile(r" dot\(")
    plain, again = compiled(recompute=False), compiled(recompute=True)
    assert len(product.findall(plain)) == 18 * LAYERS
    assert len(product.findall(again)) == (18 + 5) * LAYERS
    assert len(tanh.findall(again)) > len(tanh.findall(plain))


def test_outside_of_a_stateless_scope_each_call_draws_another_mask_and_both_passes_the_same():
    layer = keras.layers.Dropout(0.5, seed=1)
    layer.build((1000,))
    x = tf.ones([1000])
    masks = []
    for _ in range(2):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = recomputed(layer, x, training=True)
        masks.append(np.array(y))
        assert set(masks[-1]) == {0.0, 2.0}
        # Where the input passed, its gradient passes.
        np.testing.assert_array_equal(tape.gradient(y, x), masks[-1])
    assert abs((masks[0] == masks[1]).mean() - 0.5) < 0.05


def test_a_function_that_is_traced_once_draws_another_mask_each_time_too():
    layer = keras.layers.Dropout(0.5, seed=1)
    layer.build((1000,))
    run = tf.function(lambda x: recomputed(layer, x, training=True))
    masks = [np.array(run(tf.ones([1000]))) for _ in range(3)]
    for index, mask in enumerate(masks):
        for other in masks[:index]:
            assert abs((mask == other).mean() - 0.5) < 0.05


def test_values_of_a_scope_take_the_place_of_the_layers_own():
    block = blocks_of(0.0)[0]
    other = blocks_of(0.0)[1]
    x_BTD = random_input()
    pairs = zip(block.trainable_variables, other.trainable_variables, strict=True)
    with keras.StatelessScope([(mine, its.value) for mine, its in pairs]):
        y_BTD: Any = recomputed(block, x_BTD)
    np.testing.assert_array_equal(y_BTD, other(x_BTD))
