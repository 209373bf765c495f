"""The position-wise feed-forward network of a transformer block."""

# Shapes: B batch, T positions, D embedding width, F feed-forward width.

from typing import Any

import keras
import tensorflow as tf

from model.config import KERNEL_STDDEV
from model.dropout import Dropout
from model.linear import linear


@keras.saving.register_keras_serializable(package="gpt2_tfx")
class FeedForwardNetwork(keras.layers.Layer):
    """Applies Dense, GELU, Dense to each position on its own.

    GELU in its tanh form (Hendrycks & Gimpel 2016, section 2), the one GPT-2 was trained with.

    Args:
        embedding_dim: Width of input and output.
        feed_forward_dim: Width of the hidden layer.
        dropout: Share of the output dropped in training.
        output_stddev: Standard deviation of the output projection at initialisation.

    Call arguments:
        x_BTD: float [B, T, D].
        training: Whether dropout is active.

    Returns:
        float [B, T, D].
    """

    def __init__(
        self,
        embedding_dim: int,
        feed_forward_dim: int,
        dropout: float = 0.1,
        output_stddev: float = KERNEL_STDDEV,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.embedding_dim = embedding_dim
        self.feed_forward_dim = feed_forward_dim
        self.dropout = dropout
        self.output_stddev = output_stddev
        normal = keras.initializers.RandomNormal
        self.expansion = keras.layers.Dense(
            feed_forward_dim,
            kernel_initializer=normal(stddev=KERNEL_STDDEV),
            dtype=self.dtype_policy,
            name="expansion",
        )
        self.output_projection = keras.layers.Dense(
            embedding_dim,
            kernel_initializer=normal(stddev=output_stddev),
            dtype=self.dtype_policy,
            name="output_projection",
        )
        self.output_dropout = Dropout(dropout, dtype=self.dtype_policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.expansion.build(input_shape)
        self.output_projection.build((*input_shape[:-1], self.feed_forward_dim))

    def call(self, x_BTD: tf.Tensor, training: bool = False) -> tf.Tensor:
        hidden_BTF = tf.nn.gelu(linear(self.expansion, x_BTD, keep=True), approximate=True)
        return self.output_dropout(linear(self.output_projection, hidden_BTF), training=training)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "embedding_dim": self.embedding_dim,
            "feed_forward_dim": self.feed_forward_dim,
            "dropout": self.dropout,
            "output_stddev": self.output_stddev,
        }
