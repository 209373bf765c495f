"""A row of floats times a matrix, or a matrix times a column, as fast as XLA on a CPU can read it.

Such a product is bound by memory: each weight is read for one multiplication. Neither Eigen, to
which XLA leaves most products, nor XLA's own loops keep several cores busy with a plain one; Eigen
does with a product for each of a few parts of the sum over K (GPT-2 124M, two cores: an eighth more
tokens a second).

Eigen takes floats only: a matrix in 8 bits would be written out as floats first, four times its
size. What XLA compiles itself is a sum of products, element by element, if each is an operation of
its own: one loop that reads the matrix as it is, on more than one core. So a part of each sum over
K is made like this, and the rest, a small matrix of floats, is left to Eigen.
"""

# Shapes: K inputs, N outputs, J terms of a part of the sum, G parts, K = J * G.

import math
from collections.abc import Iterable

import tensorflow as tf

# Of a row of floats; 2 or 4 gain less (two cores).
_MAX_ROW_PARTS = 8

# With fewer there is more left to Eigen; with more XLA compiles longer, and nothing is won.
_MAX_TERMS = 16

# Floats in one AVX-512 register. The loop goes along the parts of one sum here.
_MAX_COLUMN_PARTS = 16


def row_times_matrix(row_1K: tf.Tensor, matrix_KN: tf.Tensor) -> tf.Tensor:
    """Returns float [1, N]: the product of a row and a matrix.

    Args:
        row_1K: float [1, K].
        matrix_KN: The same float, or int8; [K, N], known when the graph is built.
    """
    if matrix_KN.dtype == tf.int8:
        return _row_times_int8(row_1K[0], matrix_KN)
    inputs, outputs = matrix_KN.shape
    parts = math.gcd(inputs, _MAX_ROW_PARTS)
    row_G1J = tf.reshape(row_1K, [parts, 1, -1])
    products_G1N = tf.matmul(row_G1J, tf.reshape(matrix_KN, [parts, -1, outputs]))
    return tf.reduce_sum(products_G1N, axis=0)


def _row_times_int8(row_K: tf.Tensor, matrix_KN: tf.Tensor) -> tf.Tensor:
    terms = math.gcd(matrix_KN.shape[0], _MAX_TERMS)
    rows_JG = tf.unstack(tf.reshape(row_K, [-1, terms]), axis=1)
    matrices_JGN = tf.unstack(tf.reshape(matrix_KN, [-1, terms, matrix_KN.shape[1]]), axis=1)
    parts_GN = _sum_of_products([row_G[:, None] for row_G in rows_JG], matrices_JGN)
    # Two rows of ones: XLA would make a slow loop of its own of a product with one.
    return tf.matmul(tf.ones([2, parts_GN.shape[0]], parts_GN.dtype), parts_GN)[:1]


def matrix_times_column(matrix_NK: tf.Tensor, column_K: tf.Tensor) -> tf.Tensor:
    """Returns float [N]: the product of a matrix, int8 [N, K], and a column, float [K]."""
    parts = math.gcd(matrix_NK.shape[1], _MAX_COLUMN_PARTS)
    columns_JG = tf.unstack(tf.reshape(column_K, [-1, parts]))
    matrices_JNG = tf.unstack(tf.reshape(matrix_NK, [matrix_NK.shape[0], -1, parts]), axis=1)
    parts_NG = _sum_of_products(columns_JG, matrices_JNG)
    return tf.matmul(parts_NG, tf.ones([parts, 2], parts_NG.dtype))[:, 0]


def _sum_of_products(floats: Iterable[tf.Tensor], int8s: Iterable[tf.Tensor]) -> tf.Tensor:
    return tf.add_n([x * tf.cast(y, x.dtype) for x, y in zip(floats, int8s, strict=True)])
