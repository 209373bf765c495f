"""Causal dot-product attention with a gradient of its own."""

# Shapes: B batch, T positions, S visible positions, N heads, H head width.

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from model.dropout import Dropout
from model.kept import kept_value

# Queries attend in chunks, each to the keys up to its own end: so about half of the scores, those
# that the causal mask would hide, are never made. Smaller chunks save more of them, but make
# smaller products: 64 and 256 are slower than this at 512 positions (CPU).
_QUERIES_AT_A_TIME = 128


def dot_product_attention(
    query_BNTH: tf.Tensor,
    key_BNSH: tf.Tensor,
    value_BNSH: tf.Tensor,
    dropout: Dropout | None = None,
    documents_BT: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns float [B, N, T, H]: softmax(query @ transpose(key) + mask) @ value of each head.

    Vaswani et al. 2017, equation 1, the queries being scaled already.

    The backward pass is handed one [T, S] matrix of each head, the softmax, negative where dropout
    drops it: the sign is free, and a mask to read is faster than one to draw again. Where
    `TrainingConfig.recompute` has it so, it makes that matrix again.

    Args:
        query_BNTH: float.
        key_BNSH: float, S = T.
        value_BNSH: float, S = T.
        dropout: If given, what drops some of the softmax.
        documents_BT: As in `attention_bias`.
    """
    chunks = _chunks(query_BNTH)
    scale = tf.cast(dropout.scale if dropout else 1, query_BNTH.dtype)

    @tf.custom_gradient
    def attend(
        query_BNTH: tf.Tensor, key_BNSH: tf.Tensor, value_BNSH: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, ...]]]:
        def signed_softmax(begin: int, end: int | tf.Tensor) -> tf.Tensor:
            scores_BNTS = tf.matmul(
                query_BNTH[:, :, begin:end], key_BNSH[:, :, :end], transpose_b=True
            )
            # Softmax in float32 whatever the compute type: its sums lose too much in 16 bits.
            scores_BNTS = _float32(scores_BNTS) + attention_bias(begin, end, documents_BT)
            softmax_BNTS = tf.cast(tf.nn.softmax(scores_BNTS), query_BNTH.dtype)
            if dropout is None or dropout.rate == 0:
                return softmax_BNTS
            mask_BNTS = dropout.next_mask(tf.shape(softmax_BNTS))
            return tf.where(mask_BNTS, softmax_BNTS, -softmax_BNTS)

        softmaxes, mixed = [], []
        for begin, end in chunks:
            softmaxes.append(
                kept_value(functools.partial(signed_softmax, begin, end), quadratic=True)
            )
            weights_BNTS = tf.nn.relu(softmaxes[-1]) * scale
            mixed.append(tf.matmul(weights_BNTS, value_BNSH[:, :, :end]))
        mixed_BNTH = kept_value(lambda: tf.concat(mixed, axis=2))

        def gradient(upstream_BNTH: tf.Tensor) -> tuple[tf.Tensor, ...]:
            # Softmax' gradient subtracts a mean of what comes from above, weighted by the softmax:
            # over S terms, or over H of these (Dao et al. 2022, "FlashAttention", appendix B.2).
            means_BNT1 = tf.reduce_sum(
                _float32(upstream_BNTH) * _float32(mixed_BNTH), axis=-1, keepdims=True
            )
            of_chunks = [
                _chunk_gradients(
                    query_BNTH[:, :, begin:end],
                    key_BNSH[:, :, :end],
                    value_BNSH[:, :, :end],
                    signed_BNTS,
                    scale,
                    means_BNT1[:, :, begin:end],
                    upstream_BNTH[:, :, begin:end],
                )
                for (begin, end), signed_BNTS in zip(chunks, softmaxes, strict=True)
            ]
            d_query, d_key, d_value = zip(*of_chunks, strict=True)
            length = tf.shape(key_BNSH)[2]
            return (
                tf.concat(d_query, axis=2),
                _sum_over_chunks(d_key, length),
                _sum_over_chunks(d_value, length),
            )

        return mixed_BNTH, gradient

    return attend(query_BNTH, key_BNSH, value_BNSH)


def _chunk_gradients(
    query_BNTH: tf.Tensor,
    key_BNSH: tf.Tensor,
    value_BNSH: tf.Tensor,
    signed_BNTS: tf.Tensor,
    scale: tf.Tensor,
    means_BNT1: tf.Tensor,
    upstream_BNTH: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns gradients to the queries of a chunk and to the keys and values that they see.

    The latter two are [B, N, H, S]: XLA on CPU transposes the small factor of a product quickly,
    but takes two to three times as long for one whose large factor is transposed.
    """
    weights_BNTS = tf.nn.relu(signed_BNTS) * scale
    d_weights_BNTS = tf.matmul(upstream_BNTH, value_BNSH, transpose_b=True)
    by_weights_BNTS = _float32(weights_BNTS) * _float32(d_weights_BNTS)
    d_scores_BNTS = by_weights_BNTS - tf.abs(_float32(signed_BNTS)) * means_BNT1
    d_scores_BNTS = tf.cast(d_scores_BNTS, query_BNTH.dtype)
    return (
        tf.matmul(d_scores_BNTS, key_BNSH),
        tf.matmul(query_BNTH, d_scores_BNTS, transpose_a=True),
        tf.matmul(upstream_BNTH, weights_BNTS, transpose_a=True),
    )


def _sum_over_chunks(parts_BNHS: Sequence[tf.Tensor], length: tf.Tensor) -> tf.Tensor:
    """Returns float [B, N, S, H], S = `length`: the sum of what each chunk gives its first keys."""
    padded_BNHS = [
        tf.pad(part_BNHS, [[0, 0], [0, 0], [0, 0], [0, length - tf.shape(part_BNHS)[3]]])
        for part_BNHS in parts_BNHS
    ]
    return tf.transpose(tf.add_n(padded_BNHS), [0, 1, 3, 2])


def _chunks(query_BNTH: tf.Tensor) -> list[tuple[int, int | tf.Tensor]]:
    """Returns begin and end of each chunk of queries; one for all where T is not known."""
    length = query_BNTH.shape[2]
    if length is None:
        return [(0, tf.shape(query_BNTH)[2])]
    begins = range(0, length, _QUERIES_AT_A_TIME)
    return [(begin, min(begin + _QUERIES_AT_A_TIME, length)) for begin in begins]


def attention_bias(
    begin: int, end: int | tf.Tensor, documents_BT: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns what is added to scores: 0 where a query may look, a large negative elsewhere.

    -1e9 rather than -inf: added to any finite score it underflows to weight 0 all the same,
    and a gradient through it is 0, never NaN.

    Args:
        begin: The queries' first position.
        end: Where queries and keys end; keys begin at 0.
        documents_BT: int [B, T], which document each position belongs to, or None.

    Returns:
        float32 [T, S], or with documents [B, 1, T, S], where T = end - begin and S = end. A query
        looks at itself and at earlier positions, of its own document alone if documents are given.
    """
    positions = tf.range(end)
    is_visible = positions[None, :] <= positions[begin:, None]
    if documents_BT is not None:
        documents_BS = documents_BT[:, :end]
        is_visible &= documents_BS[:, None, None, :] == documents_BS[:, None, begin:, None]
    return tf.where(is_visible, 0.0, -1e9)


def _float32(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(x, tf.float32)
