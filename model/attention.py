"""Causal multi-head self-attention."""

# Shapes: B batch, T positions, S visible positions, N heads, H head width, D = N * H.

from typing import Any

import keras
import tensorflow as tf

from model.config import KERNEL_STDDEV, check_heads
from model.dropout import Dropout


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
        query_BNTH, key_BNSH, value_BNSH = self._split_heads(self.query_key_value(x_BTD))
        scale = (self.embedding_dim // self.num_heads) ** -0.5
        scores_BNTS = tf.matmul(query_BNTH * scale, key_BNSH, transpose_b=True)
        # Softmax in float32 whatever the compute type: its sums lose too much in 16 bits.
        scores_BNTS = tf.cast(scores_BNTS, tf.float32)
        scores_BNTS += attention_bias(tf.shape(scores_BNTS)[-1], documents_BT)
        weights_BNTS = tf.cast(tf.nn.softmax(scores_BNTS), value_BNSH.dtype)
        weights_BNTS = self.attention_dropout(weights_BNTS, training=training)
        mixed_BNTH = tf.matmul(weights_BNTS, value_BNSH)
        mixed_BTD = tf.reshape(tf.transpose(mixed_BNTH, [0, 2, 1, 3]), tf.shape(x_BTD))
        return self.output_dropout(self.output_projection(mixed_BTD), training=training)

    def _split_heads(self, qkv_BTE: tf.Tensor) -> list[tf.Tensor]:
        """Splits [B, T, 3 * D] into query, key and value of [B, N, T, H] each."""
        batch, length = tf.unstack(tf.shape(qkv_BTE)[:2])
        head_width = self.embedding_dim // self.num_heads
        split = tf.reshape(qkv_BTE, [batch, length, 3, self.num_heads, head_width])
        return tf.unstack(tf.transpose(split, [2, 0, 3, 1, 4]))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "embedding_dim": self.embedding_dim,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "output_stddev": self.output_stddev,
        }


def attention_bias(length: int | tf.Tensor, documents_BT: tf.Tensor | None = None) -> tf.Tensor:
    """Returns what is added to scores: 0 where a query may look, a large negative elsewhere.

    -1e9 rather than -inf: added to any finite score it underflows to weight 0 all the same,
    and a gradient through it is 0, never NaN.

    Args:
        length: T.
        documents_BT: int [B, T], which document each position belongs to, or None.

    Returns:
        float32 [T, S], or with documents [B, 1, T, S], where S = T. A query looks at itself and
        at earlier positions (S <= T), of its own document alone if documents are given.
    """
    positions = tf.range(length)
    is_visible = positions[None, :] <= positions[:, None]
    if documents_BT is not None:
        is_visible &= documents_BT[:, None, None, :] == documents_BT[:, None, :, None]
    return tf.where(is_visible, 0.0, -1e9)
