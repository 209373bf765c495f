"""Causal dot-product attention with a gradient of its own."""

# Shapes: B batch, T positions, S visible positions, N heads, H head width.

import functools
from collections.abc import Callable

import tensorflow as tf

from model.dropout import Dropout
from model.kept import kept_value

# Queries attend in chunks, each to the keys up to its own end: so about half of the scores, those
# that the causal mask would hide, are never made. Smaller chunks save more of them, but make
# smaller products; 128 is no faster than this at 512 positions (CPU).
_QUERIES_AT_A_TIME = 256


def dot_product_attention(
    query_BNTH: tf.Tensor,
    key_BNHS: tf.Tensor,
    value_BNHS: tf.Tensor,
    dropout: Dropout | None = None,
    documents_BT: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns float [B, T, N, H]: softmax(query @ key + mask) @ value of each head.

    Vaswani et al. 2017, equation 1, the queries being scaled already. Keys and values have
    positions last: so no product, forward or backward, has to transpose a [T, S] matrix, for
    which XLA has but slow loops on a CPU.

    The backward pass is handed one matrix of that size, the softmax, negative where dropout drops
    it: the sign is free, and a mask to read is faster than one to draw again.

    Args:
        query_BNTH: float.
        key_BNHS: float, S = T.
        value_BNHS: float, S = T.
        dropout: If given, what drops some of the softmax.
        documents_BT: As in `attention_bias`.
    """
    chunks = _chunks(query_BNTH)
    scale = tf.cast(dropout.scale if dropout else 1, query_BNTH.dtype)

    @tf.custom_gradient
    def attend(
        query_BNTH: tf.Tensor, key_BNHS: tf.Tensor, value_BNHS: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, ...]]]:
        def signed_softmax(begin: int, end: int | tf.Tensor) -> tf.Tensor:
            scores_BNTS = tf.matmul(query_BNTH[:, :, begin:end], key_BNHS[..., :end])
            # Softmax in float32 whatever the compute type: its sums lose too much in 16 bits.
            scores_BNTS = _float32(scores_BNTS) + attention_bias(begin, end, documents_BT)
            softmax_BNTS = tf.cast(tf.nn.softmax(scores_BNTS), query_BNTH.dtype)
            if dropout is None:
                return softmax_BNTS
            mask_BNTS = dropout.next_mask(tf.shape(softmax_BNTS))
            return tf.where(mask_BNTS, softmax_BNTS, -softmax_BNTS)

        softmaxes, mixed = [], []
        for begin, end in chunks:
            softmaxes.append(kept_value(functools.partial(signed_softmax, begin, end)))
            weights_BNTS = tf.nn.relu(softmaxes[-1]) * scale
            mixed.append(tf.matmul(value_BNHS[..., :end], weights_BNTS, transpose_b=True))
        mixed_BTNH = kept_value(lambda: tf.transpose(tf.concat(mixed, axis=-1), [0, 3, 1, 2]))

        def gradient(upstream_BTNH: tf.Tensor) -> tuple[tf.Tensor, ...]:
            # Softmax' gradient subtracts a mean of what comes from above, weighted by the softmax:
            # over S terms, or over H of these (Dao et al. 2022, "FlashAttention", appendix B.2).
            means_BTN = tf.reduce_sum(_float32(upstream_BTNH) * _float32(mixed_BTNH), axis=-1)
            means_BNT1 = tf.transpose(means_BTN, [0, 2, 1])[..., None]
            upstream_BNHT = tf.transpose(upstream_BTNH, [0, 2, 3, 1])
            d_query, d_key, d_value = [], [], []
            for (begin, end), signed_BNTS in zip(chunks, softmaxes, strict=True):
                d_chunk = _chunk_gradients(
                    query_BNTH[:, :, begin:end],
                    key_BNHS[..., :end],
                    value_BNHS[..., :end],
                    signed_BNTS,
                    scale,
                    means_BNT1[:, :, begin:end],
                    upstream_BNHT[..., begin:end],
                )
                later = [[0, 0], [0, 0], [0, 0], [0, tf.shape(key_BNHS)[3] - end]]
                d_query.append(d_chunk[0])
                d_key.append(tf.pad(d_chunk[1], later))
                d_value.append(tf.pad(d_chunk[2], later))
            return tf.concat(d_query, axis=2), tf.add_n(d_key), tf.add_n(d_value)

        return mixed_BTNH, gradient

    return attend(query_BNTH, key_BNHS, value_BNHS)


def _chunk_gradients(
    query_BNTH: tf.Tensor,
    key_BNHS: tf.Tensor,
    value_BNHS: tf.Tensor,
    signed_BNTS: tf.Tensor,
    scale: tf.Tensor,
    means_BNT1: tf.Tensor,
    upstream_BNHT: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns gradients to the queries of a chunk and to the keys and values that they see."""
    weights_BNTS = tf.nn.relu(signed_BNTS) * scale
    d_weights_BNTS = tf.matmul(upstream_BNHT, value_BNHS, transpose_a=True)
    by_weights_BNTS = _float32(weights_BNTS) * _float32(d_weights_BNTS)
    d_scores_BNTS = by_weights_BNTS - tf.abs(_float32(signed_BNTS)) * means_BNT1
    d_scores_BNTS = tf.cast(d_scores_BNTS, query_BNTH.dtype)
    return (
        tf.matmul(d_scores_BNTS, key_BNHS, transpose_b=True),
        tf.matmul(query_BNTH, d_scores_BNTS, transpose_a=True),
        tf.matmul(upstream_BNHT, weights_BNTS),
    )


def _chunks(query_BNTH: tf.Tensor) -> list[tuple[int, int | tf.Tensor]]:
    """Returns begin and end of each chunk of queries; one for all where T shows in the graph."""
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
