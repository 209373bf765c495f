"""model/dropout.py: its bits against plain Python, their distribution, the layer."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from model.dropout import Dropout, random_bits

MASK = 2**32 - 1


def mix(x: int) -> int:
    """The hash of 32 bits, in plain Python."""
    x ^= x >> 16
    x = x * 0x7FEB352D & MASK
    x ^= x >> 15
    x = x * 0x846CA68B & MASK
    return x ^ x >> 16


def python_bits(seed: tuple[int, int], rows: int, columns: int) -> list[list[int]]:
    bits = []
    for row in range(rows):
        first = mix(row + mix(seed[1] + 0x9E3779B9 & MASK) & MASK)
        second = mix(seed[0] + first & MASK)
        bits.append([mix(mix(c + first & MASK) + second & MASK) for c in range(columns)])
    return bits


@pytest.mark.parametrize("seed", [(0, 0), (1, 2), (2**32 - 1, 2**32 - 1)])
@pytest.mark.parametrize("xla", [False, True])
def test_the_bits_are_those_of_plain_python(seed, xla):
    function = tf.function(random_bits, jit_compile=xla)
    bits = function(tf.constant(seed, tf.int64), tf.constant([2, 3, 5]))
    expected = np.reshape(python_bits(seed, 6, 5), [2, 3, 5])
    np.testing.assert_array_equal(bits, expected)


def dropped(seed: tuple[int, int], rate: float = 0.1) -> np.ndarray:
    """Where 400 rows of 1,000 columns are dropped, 0 or 1."""
    bits = random_bits(tf.constant(seed, tf.int64), tf.constant([400, 1000]))
    return (np.array(bits) < rate * 2**32).astype(float)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_a_share_of_rate_is_dropped_in_every_run_of_places(rate):
    where = dropped((3, 4), rate)
    # Five standard deviations of a mean of independent draws.
    for axis, count in ((None, 400_000), (0, 400), (1, 1000)):
        deviation = (rate * (1 - rate) / count) ** 0.5
        assert np.abs(where.mean(axis=axis) - rate).max() < 5 * deviation


def test_neighbours_and_draws_have_nothing_to_do_with_each_other():
    masks = [dropped(seed) for seed in ((0, 0), (0, 1), (1, 0), (1, 1))]
    limit = 5 / 400_000**0.5
    for one, other in itertools.combinations(masks, 2):
        assert abs(np.corrcoef(one.flat, other.flat)[0, 1]) < limit
    for lag in (1, 2, 64, 1000):  # the last one: the row below
        flat = masks[0].ravel()
        assert abs(np.corrcoef(flat[lag:], flat[:-lag])[0, 1]) < limit


def test_what_is_kept_is_scaled_and_so_is_its_gradient():
    x = tf.fill([20, 30], 3.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = Dropout(0.25, seed=1)(x, training=True)
    assert {float(value) for value in np.unique(y)} == {0.0, 4.0}
    np.testing.assert_allclose(tape.gradient(y, x), np.array(y) / 3)


def test_each_call_draws_anew_and_the_seed_says_what():
    x = tf.ones([20, 30])
    layer, same = Dropout(0.5, seed=1), Dropout(0.5, seed=1)
    first, second = np.array(layer(x, training=True)), np.array(layer(x, training=True))
    assert (first != second).any()
    assert (np.array(same(x, training=True)) == first).all()


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True)])
def test_without_training_or_rate_nothing_is_dropped(rate, training):
    x = tf.ones([20, 30])
    assert (np.array(Dropout(rate)(x, training=training)) == 1).all()


def test_a_rate_next_to_one_drops_all_but_nothing_overflows():
    y = np.array(Dropout(1 - 1e-12)(tf.ones([20, 30]), training=True))
    assert (y == 0).all()


def test_it_is_saved_as_itself():
    layer = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(Dropout(0.3, seed=5))
    )
    assert type(layer) is Dropout
    assert (layer.rate, layer.seed) == (0.3, 5)
