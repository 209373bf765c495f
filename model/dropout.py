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
        bits = random_bits(self.seed_generator.next(), tf.shape(inputs))
        is_kept = bits >= tf.constant(min(round(self.rate * 2**32), 2**32 - 1), tf.uint32)
        return tf.where(is_kept, inputs * tf.cast(1 / (1 - self.rate), inputs.dtype), 0)


def random_bits(seed: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Returns uint32 of this shape, a function of seed and position, uniform over all its values.

    Multiplications and shifts in turn, with the constants of Wellons' `lowbias32` hash. The seed
    goes in twice, before the first and in the middle, so that two seeds never give the same numbers
    in another order.

    Args:
        seed: int [2], of which 32 bits each are heeded.
        shape: int32 [rank]; fewer than 2**32 positions.
    """
    seed = tf.cast(seed, tf.uint32)
    first = _mix(seed[0] + tf.constant(0x9E3779B9, tf.uint32))
    second = _mix(seed[1] + first)
    positions = tf.reshape(tf.range(tf.reduce_prod(shape)), shape)
    x = tf.cast(positions, tf.uint32) + first
    return _mix(_mix(x) + second)


def _mix(x: tf.Tensor) -> tf.Tensor:
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, 16))
    x *= tf.constant(0x7FEB352D, tf.uint32)
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, 15))
    x *= tf.constant(0x846CA68B, tf.uint32)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, 16))
