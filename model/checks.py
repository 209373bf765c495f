"""Checks of a graph's inputs when it runs."""

from collections.abc import Sequence

import tensorflow as tf


def check(holds: tf.Tensor, message: str, values: Sequence[tf.Tensor | int]) -> tf.Operation:
    """Returns an operation that raises InvalidArgumentError unless `holds`.

    Args:
        holds: bool [].
        message: What is wrong, with `{}` for each of the values.
        values: What was received, and its bounds.
    """
    return tf.debugging.Assert(holds, [tf.strings.format(message, list(values))])


def check_lengths(ids_BT: tf.Tensor, lengths_B: tf.Tensor, least: int) -> list[tf.Operation]:
    """Returns operations that raise InvalidArgumentError unless each row of ids has a length.

    Args:
        ids_BT: int [B, T].
        lengths_B: int32 [B], from `least` to T.
        least: The least that is allowed.
    """
    rows, columns = tf.unstack(tf.shape(ids_BT))
    return [
        check(
            tf.size(lengths_B) == rows,
            "lengths must have a value for each of the {} rows of ids, got {}",
            [rows, tf.size(lengths_B)],
        ),
        check(
            tf.reduce_all((lengths_B >= least) & (lengths_B <= columns)),
            f"lengths must be from {least} to the {{}} columns of ids, got {{}}",
            [columns, lengths_B],
        ),
    ]
