"""The affine map of a dense layer, as one product of two matrices."""

import keras
import tensorflow as tf

from model.kept import kept


def linear(layer: keras.layers.Dense, x: tf.Tensor, keep: bool = False) -> tf.Tensor:
    """Returns what `layer(x)` does.

    Args:
        layer: A built layer without activation.
        x: float [..., inputs].
        keep: Whether the product is kept for a backward pass that is a program of its own.
    """
    kernel, bias = (tf.cast(value, x.dtype) for value in (layer.kernel, layer.bias))
    rows = tf.reshape(x, [-1, kernel.shape[0]])
    product = kept(tf.matmul, rows, kernel) if keep else tf.matmul(rows, kernel)
    # For one row XLA would add the bias as part of the product, which then has but one thread: not
    # so if it is subtracted.
    shifted = product - tf.negative(bias)
    return tf.reshape(shifted, tf.concat([tf.shape(x)[:-1], [layer.units]], axis=0))
