"""model/kept.py: what a forward pass computes and a backward pass of its own is given."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model.kept import given, keeping, kept, kept_value

A = tf.constant([[1.0, 2.0], [3.0, 4.0]])
B = tf.constant([[5.0, 6.0], [7.0, 8.0]])
PRODUCT = [[19.0, 22.0], [43.0, 50.0]]


def counted(calls: list[Any]) -> Callable[..., tf.Tensor]:
    def matmul(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        calls.append((a, b))
        return tf.matmul(a, b)

    return matmul


def test_outside_of_any_context_a_value_is_computed_and_has_its_gradient():
    with tf.GradientTape() as tape:
        tape.watch([A, B])
        y = kept(tf.matmul, A, B)
    np.testing.assert_array_equal(y, PRODUCT)
    d_a, d_b = tape.gradient(y, [A, B])
    np.testing.assert_array_equal(d_a, [[11, 15], [11, 15]])  # rows of sums of B's rows
    np.testing.assert_array_equal(d_b, [[4, 4], [6, 6]])


def test_values_are_kept_in_order():
    with keeping() as values:
        kept(tf.matmul, A, B)
        kept_value(lambda: tf.constant(7.0))
        kept(tf.add, A, B)
    first, second, third = values
    np.testing.assert_array_equal(first, PRODUCT)
    assert float(second) == 7
    np.testing.assert_array_equal(third, [[6, 8], [10, 12]])


def test_given_values_are_returned_in_order_and_nothing_is_computed():
    calls: list[Any] = []
    with given([tf.constant([[9.0]]), tf.constant(8.0)]):
        first = kept(counted(calls), A, B)
        second = kept_value(lambda: tf.constant(7.0))
    assert (float(first[0, 0]), float(second)) == (9, 8)
    assert calls == []


def test_quadratic_values_are_neither_kept_nor_given_where_they_are_not_asked_for():
    def two_values() -> list[float]:
        square = kept_value(lambda: tf.constant(7.0), quadratic=True)
        return [float(square), float(kept_value(lambda: tf.constant(8.0)))]

    with keeping(with_quadratic=False) as values:
        two_values()
    assert [float(value) for value in values] == [8]
    with given([tf.constant(9.0)], with_quadratic=False):
        assert two_values() == [7, 9]


def test_the_gradient_of_a_given_value_is_that_of_what_would_have_computed_it():
    with tf.GradientTape() as tape:
        tape.watch([A, B])
        with given([tf.zeros([2, 2])]):
            y = kept(tf.matmul, A, B)
    np.testing.assert_array_equal(y, np.zeros([2, 2]))
    d_a, d_b = tape.gradient(y, [A, B])
    np.testing.assert_array_equal(d_a, [[11, 15], [11, 15]])
    np.testing.assert_array_equal(d_b, [[4, 4], [6, 6]])


def test_a_context_ends_where_its_block_ends_even_by_an_error():
    with pytest.raises(KeyError), keeping():
        raise KeyError
    with keeping() as values:
        pass
    kept(tf.matmul, A, B)
    assert values == []


def test_contexts_cannot_be_nested():
    with keeping(), pytest.raises(RuntimeError, match="nested"), given([]):
        pass


def test_a_thread_does_not_see_another_ones_context():
    with keeping() as values:
        thread = threading.Thread(target=lambda: kept(tf.matmul, A, B))
        thread.start()
        thread.join()
    assert values == []
