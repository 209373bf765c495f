"""Causal multi-head self-attention."""

# Shapes: B batch, T positions, N heads, H head width, D = N * H.

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from model.config import KERNEL_STDDEV, check_heads
from model.dot_product_attention import dot_product_attention
from model.dropout import Dropout
from model.linear import linear

# From scaled queries, keys and values, each [B, T, N, H], to what each position sees, [B, T, N, H].
Attend = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


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
        attend: If given, what is called instead of causal attention among the T positions.

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
        self,
        x_BTD: tf.Tensor,
        documents_BT: tf.Tensor | None = None,
        training: bool = False,
        attend: Attend | None = None,
    ) -> tf.Tensor:
        shape = tf.shape(x_BTD)
        head_width = self.embedding_dim // self.num_heads
        query_BTNH, key_BTNH, value_BTNH = (
            tf.reshape(part_BTD, [shape[0], shape[1], self.num_heads, head_width])
            for part_BTD in tf.split(linear(self.query_key_value, x_BTD, keep=True), 3, axis=-1)
        )
        query_BTNH *= head_width**-0.5
        if attend is None:
            attend = functools.partial(
                attend_to_earlier,
                dropout=self.attention_dropout if training else None,
                documents_BT=documents_BT,
            )
        mixed_BTNH = attend(query_BTNH, key_BTNH, value_BTNH)
        mixed_BTD = tf.reshape(mixed_BTNH, shape)
        return self.output_dropout(linear(self.output_projection, mixed_BTD), training=training)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "embedding_dim": self.embedding_dim,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "output_stddev": self.output_stddev,
        }


def attend_to_earlier(
    query_BTNH: tf.Tensor,
    key_BTNH: tf.Tensor,
    value_BTNH: tf.Tensor,
    dropout: Dropout | None = None,
    documents_BT: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns float [B, T, N, H]: causal attention; the arguments as `dot_product_attention`'s."""
    query_BNTH, key_BNSH, value_BNSH = (
        tf.transpose(x, [0, 2, 1, 3]) for x in (query_BTNH, key_BTNH, value_BTNH)
    )
    mixed_BNTH = dot_product_attention(query_BNTH, key_BNSH, value_BNSH, dropout, documents_BT)
    return tf.transpose(mixed_BNTH, [0, 2, 1, 3])
