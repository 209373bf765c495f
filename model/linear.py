"""The affine map of a dense layer, as one product of two matrices."""

import keras
import tensorflow as tf

from model.kept import kept
from model.one_row import row_times_matrix


def linear(layer: keras.layers.Dense, x: tf.Tensor, keep: bool = False) -> tf.Tensor:
    """Returns what `layer(x)` does.

    Args:
        layer: A built layer without activation, with weights in floats or 8 bits.
        x: float [..., inputs].
        keep: Whether the product is kept for a backward pass that is a program of its own.
    """
    rows = tf.reshape(x, [-1, layer.kernel.shape[0]])
    kernel = tf.convert_to_tensor(layer.kernel)
    if rows.shape[0] == 1 and x.dtype == tf.float32:  # parts of sums would lose digits in 16 bits
        multiply = row_times_matrix
    else:
        # Several rows are faster with weights in 8 bits written out as floats.
        multiply, kernel = tf.matmul, tf.cast(kernel, x.dtype)
    product = kept(multiply, rows, kernel) if keep else multiply(rows, kernel)
    if layer.quantization_mode == "int8":
        product /= layer.kernel_scale
    y = product + tf.cast(layer.bias, x.dtype)
    return tf.reshape(y, tf.concat([tf.shape(x)[:-1], [layer.units]], axis=0))
