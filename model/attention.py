"""Causal multi-head self-attention."""

# Shapes: B batch, T positions, S visible positions, N heads, H head width, D = N * H.

from typing import Any

import keras
import tensorflow as tf

from model.config import KERNEL_STDDEV, check_heads
from model.dropout import Dropout

# Queries attend in chunks, each to the keys up to its own end: so about half of the scores, those
# that the causal mask would hide, are never made. Smaller chunks save more of them, but make
# smaller products; 128 is no faster than this at 512 positions (CPU).
_QUERIES_AT_A_TIME = 256


@keras.saving.register_keras_serializable(package="gpt2_tfx")
class MultiHeadSelfAttention(keras.layers.Layer):
    """Mixes each position with those before it and itself, never with later ones.

    Scaled dot-product attention (Vaswani et al. 2017, equation 1) over `num_heads` heads.
    Query, key and value come from one projection, as in OpenAI's weights (`c_attn`).

    Args:
        embedding_dim: Width of input and output; a multiple of `num_heads`.
        num_heads: Number of heads.
        dropout: Share dropped of the attention weights and of the output, in training.
        output_stddev: Standard deviation of the output projection at initialisation.

    Call arguments:
        x_BTD: float [B, T, D].
        documents_BT: int [B, T], rising in each row, or None: a position sees no other
            document's positions.
        training: Whether dropout is active.

    Returns:
        float [B, T, D].

    Raises:
        ValueError: `num_heads` does not divide `embedding_dim`.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        dropout: float = 0.1,
        output_stddev: float = KERNEL_STDDEV,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_heads(embedding_dim, num_heads)
        self.embedding_dim = embedding_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.output_stddev = output_stddev
        normal = keras.initializers.RandomNormal
        self.query_key_value = keras.layers.Dense(
            3 * embedding_dim,
            kernel_initializer=normal(stddev=KERNEL_STDDEV),
            dtype=self.dtype_policy,
            name="query_key_value",
        )
        self.output_projection = keras.layers.Dense(
            embedding_dim,
            kernel_initializer=normal(stddev=output_stddev),
            dtype=self.dtype_policy,
            name="output_projection",
        )
        self.attention_dropout = Dropout(dropout, dtype=self.dtype_policy)
        self.output_dropout = Dropout(dropout, dtype=self.dtype_policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.query_key_value.build(input_shape)
        self.output_projection.build(input_shape)

    def call(
        self, x_BTD: tf.Tensor, documents_BT: tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        query_BNTH, key_BNHS, value_BNHS = self._split_heads(self.query_key_value(x_BTD))
        mixed = []
        for begin, end in _chunks(x_BTD):
            scores_BNTS = tf.matmul(query_BNTH[:, :, begin:end], key_BNHS[..., :end])
            # Softmax in float32 whatever the compute type: its sums lose too much in 16 bits.
            scores_BNTS = tf.cast(scores_BNTS, tf.float32)
            weights_BNTS = tf.nn.softmax(scores_BNTS + attention_bias(begin, end, documents_BT))
            weights_BNTS = tf.cast(weights_BNTS, value_BNHS.dtype)
            weights_BNTS = self.attention_dropout(weights_BNTS, training=training)
            mixed.append(tf.matmul(value_BNHS[..., :end], weights_BNTS, transpose_b=True))
        mixed_BTNH = tf.transpose(tf.concat(mixed, axis=-1), [0, 3, 1, 2])
        mixed_BTD = tf.reshape(mixed_BTNH, tf.shape(x_BTD))
        return self.output_dropout(self.output_projection(mixed_BTD), training=training)

    def _split_heads(self, qkv_BTE: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Splits [B, T, 3 * D] into scaled queries [B, N, T, H], and keys and values [B, N, H, S].

        Keys and values have positions last: so no product, forward or backward, has to transpose
        a [T, S] matrix, for which XLA has but slow loops on a CPU.
        """
        batch, length = tf.unstack(tf.shape(qkv_BTE)[:2])
        head_width = self.embedding_dim // self.num_heads
        split = tf.reshape(qkv_BTE, [batch, length, 3, self.num_heads, head_width])
        query_BNTH = tf.transpose(split[:, :, 0], [0, 2, 1, 3]) * head_width**-0.5
        key_BNHS, value_BNHS = tf.unstack(tf.transpose(split[:, :, 1:], [2, 0, 3, 4, 1]))
        return query_BNTH, key_BNHS, value_BNHS

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "embedding_dim": self.embedding_dim,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "output_stddev": self.output_stddev,
        }


def _chunks(x_BTD: tf.Tensor) -> list[tuple[int, int | tf.Tensor]]:
    """Returns begin and end of each chunk of queries; one for all where T shows in the graph."""
    length = x_BTD.shape[1]
    if length is None:
        return [(0, tf.shape(x_BTD)[1])]
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
