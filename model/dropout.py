"""Dropout whose mask is a hash of seed and position, so that XLA makes it on the fly."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="gpt2_tfx")
class Dropout(keras.layers.Dropout):
    """Keras' dropout with a cheaper mask.

    The attention weights of GPT-2 124M take 38 million random numbers in a step of 512 tokens.
    Keras has a generator fill an array with them; here each is a hash of its position, a few
    integer operations that XLA fuses into the product they mask. Like Keras' it is a function of
    the layer's seed state alone, and counts that state up.

    Args:
        rate: The share of values set to 0; the others are scaled by 1 / (1 - rate).
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training or self.rate == 0:
            return inputs
        scale = tf.cast(self.scale, inputs.dtype)
        return tf.where(self.next_mask(tf.shape(inputs)), inputs * scale, 0)

    @property
    def scale(self) -> float:
        """What values that are kept are multiplied by."""
        return 1 / (1 - self.rate)

    def next_mask(self, shape: tf.Tensor) -> tf.Tensor:
        """Returns bool of this shape, a new draw: where values are kept."""
        limit = min(round(self.rate * 2**32), 2**32 - 1)
        return random_bits(self.seed_generator.next(), shape) >= tf.constant(limit, tf.uint32)


def random_bits(seed: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Returns uint32 of this shape, a function of seed and position, uniform over all its values.

    Multiplications and shifts in turn, with the constants of Wellons' `lowbias32` hash. Each row
    (all axes but the last) has two keys; the seed's second half, which changes from draw to draw,
    enters first. Otherwise XLA would compute while compiling whatever depends on positions
    alone, and keep hundreds of megabytes of it.

    Args:
        seed: int [2], of which 32 bits each are heeded.
        shape: int32 [rank], rank >= 1; fewer than 2**32 rows.
    """
    seed = tf.cast(seed, tf.uint32)
    rows = tf.reshape(tf.range(tf.reduce_prod(shape[:-1])), tf.concat([shape[:-1], [1]], axis=0))
    first = _mix(tf.cast(rows, tf.uint32) + _mix(seed[1] + tf.constant(0x9E3779B9, tf.uint32)))
    second = _mix(seed[0] + first)
    columns = tf.cast(tf.range(shape[-1]), tf.uint32)
    return _mix(_mix(columns + first) + second)


def _mix(x: tf.Tensor) -> tf.Tensor:
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, 16))
    x *= tf.constant(0x7FEB352D, tf.uint32)
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, 15))
    x *= tf.constant(0x846CA68B, tf.uint32)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, 16))
