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
    is_int8 = layer.quantization_mode == "int8"
    if is_int8 and rows.shape[0] == 1:
        product = row_times_matrix(rows[0], tf.convert_to_tensor(layer.kernel))[None]
    else:
        kernel = tf.cast(layer.kernel, x.dtype)
        product = kept(tf.matmul, rows, kernel) if keep else tf.matmul(rows, kernel)
    if is_int8:
        product /= layer.kernel_scale
    bias = tf.cast(layer.bias, x.dtype)
    # For one row XLA would add the bias as part of the product, which then has but one thread: not
    # so if it is subtracted.
    shifted = product - tf.negative(bias)
    return tf.reshape(shifted, tf.concat([tf.shape(x)[:-1], [layer.units]], axis=0))
