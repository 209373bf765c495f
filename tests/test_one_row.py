"""model/one_row.py against float64 NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from model.one_row import matrix_times_column, row_times_matrix

# Multiples of 16, of a smaller power of two, and of none.
WIDTHS = [48, 16, 20, 7]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_row_times_a_matrix(width, compiled):
    row, matrix = drawn(width, [width, 5])
    product = tf.function(row_times_matrix, jit_compile=compiled)
    near(product(tf.constant(row), tf.constant(matrix)), row.astype(float) @ matrix.astype(float))


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
