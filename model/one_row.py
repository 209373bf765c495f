"""A row of floats times a matrix in 8 bits, as fast as XLA on a CPU can read the matrix.

XLA leaves a plain product to Eigen, which takes floats only: the matrix would be written out as
floats first, four times its size. What XLA compiles itself is the sum of a few products, element by
element: one loop that reads the matrix as it is, on more than one core. What remains to be summed
is a sixteenth of it, in floats, and goes to Eigen.
"""

# Shapes: K inputs, N outputs, J terms of a sum, G sums for each output, K = G * J.

import math
from collections.abc import Iterable

import tensorflow as tf

_SIXTEEN = 16  # or what divides K of it: terms of a sum here, sums for each output there


def row_times_matrix(row_K: tf.Tensor, matrix_KN: tf.Tensor) -> tf.Tensor:
    """Returns float [N]: the product of a row, float [K], and a matrix, int8 [K, N]."""
    terms = math.gcd(matrix_KN.shape[0], _SIXTEEN)
    rows_JG = tf.unstack(tf.reshape(row_K, [-1, terms]), axis=1)
    matrices_JGN = tf.unstack(tf.reshape(matrix_KN, [-1, terms, matrix_KN.shape[1]]), axis=1)
    sums_GN = _sum_of_products([row_G[:, None] for row_G in rows_JG], matrices_JGN)
    # Two rows of ones: XLA would make a slow loop of its own of a product with one.
    return tf.matmul(tf.ones([2, sums_GN.shape[0]], sums_GN.dtype), sums_GN)[0]


def matrix_times_column(matrix_NK: tf.Tensor, column_K: tf.Tensor) -> tf.Tensor:
    """Returns float [N]: the product of a matrix, int8 [N, K], and a column, float [K]."""
    groups = math.gcd(matrix_NK.shape[1], _SIXTEEN)
    columns_JG = tf.unstack(tf.reshape(column_K, [-1, groups]))
    matrices_JNG = tf.unstack(tf.reshape(matrix_NK, [matrix_NK.shape[0], -1, groups]), axis=1)
    sums_NG = _sum_of_products(columns_JG, matrices_JNG)
    return tf.matmul(sums_NG, tf.ones([groups, 2], sums_NG.dtype))[:, 0]


def _sum_of_products(floats: Iterable[tf.Tensor], int8s: Iterable[tf.Tensor]) -> tf.Tensor:
    return tf.add_n([x * tf.cast(y, x.dtype) for x, y in zip(floats, int8s, strict=True)])
