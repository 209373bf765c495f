"""GPT-2 as a Keras model."""

# Shapes: B batch, T positions, D embedding width, V vocabulary.

from typing import Any

import keras
import tensorflow as tf

from model.config import POSITION_STDDEV, TOKEN_STDDEV, GPT2Config
from model.transformer_block import TransformerBlock


@keras.saving.register_keras_serializable(package="gpt2_tfx")
class GPT2(keras.Model):
    """Predicts each next token from the tokens up to it (Radford et al. 2019).

    Calling the model returns probabilities, so that Keras' string losses and metrics mean what
    they say: `compile(loss="sparse_categorical_crossentropy")` expects probabilities. No
    precision is lost by it: the last op is a softmax, and in a graph (`fit`, `evaluate`) Keras
    finds the logits behind it and computes the cross-entropy from those; in eager mode it takes
    the logarithm of the probabilities, clipped at 1e-7. Our own training, scoring and
    generation never see probabilities: they use `hidden_states` and `logits`.

    Args:
        vocab_size, max_length, embedding_dim, num_layers, num_heads, feed_forward_dim, dropout,
        layer_norm_epsilon: as in `GPT2Config`.

    Call arguments:
        ids_BT: int [B, T], T <= max_length.
        training: Whether dropout is active.

    Returns:
        float32 [B, T, V]: the distribution of the token after each position.

    Raises:
        ValueError: A size is out of range, or a sequence is longer than `max_length`.
    """

    def __init__(
        self,
        vocab_size: int = GPT2Config.vocab_size,
        max_length: int = GPT2Config.max_length,
        embedding_dim: int = GPT2Config.embedding_dim,
        num_layers: int = GPT2Config.num_layers,
        num_heads: int = GPT2Config.num_heads,
        feed_forward_dim: int = GPT2Config.feed_forward_dim,
        dropout: float = GPT2Config.dropout,
        layer_norm_epsilon: float = GPT2Config.layer_norm_epsilon,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config = config = GPT2Config(
            vocab_size=vocab_size,
            max_length=max_length,
            embedding_dim=embedding_dim,
            num_layers=num_layers,
            num_heads=num_heads,
            feed_forward_dim=feed_forward_dim,
            dropout=dropout,
            layer_norm_epsilon=layer_norm_epsilon,
        )
        normal = keras.initializers.RandomNormal
        self.token_embedding = keras.layers.Embedding(
            vocab_size,
            embedding_dim,
            embeddings_initializer=normal(stddev=TOKEN_STDDEV),
            dtype=self.dtype_policy,
            name="token_embedding",
        )
        self.position_embedding = keras.layers.Embedding(
            max_length,
            embedding_dim,
            embeddings_initializer=normal(stddev=POSITION_STDDEV),
            dtype=self.dtype_policy,
            name="position_embedding",
        )
        self.embedding_dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        self.blocks = [
            TransformerBlock(
                embedding_dim,
                num_heads,
                feed_forward_dim,
                dropout,
                layer_norm_epsilon,
                config.residual_stddev,
                dtype=self.dtype_policy,
                name=f"block_{index}",
            )
            for index in range(num_layers)
        ]
        self.final_norm = keras.layers.LayerNormalization(
            epsilon=layer_norm_epsilon, dtype=self.dtype_policy, name="final_norm"
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        stream_shape = (*input_shape, self.config.embedding_dim)
        self.token_embedding.build(input_shape)
        self.position_embedding.build(input_shape)
        for block in self.blocks:
            block.build(stream_shape)
        self.final_norm.build(stream_shape)

    def call(self, ids_BT: tf.Tensor, training: bool = False) -> tf.Tensor:
        return tf.nn.softmax(self.logits(ids_BT, training=training))

    def logits(self, ids_BT: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns float32 [B, T, V]: the unnormalised log-probability of each next token."""
        return self.project(self.hidden_states(ids_BT, training=training))

    def hidden_states(self, ids_BT: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns float [B, T, D]: the normalised stream that the output projection reads.

        Raises:
            ValueError: T is known and exceeds `max_length`. An unknown T is checked when the
                graph runs (`InvalidArgumentError`).
        """
        ids_BT = tf.convert_to_tensor(ids_BT)
        if not self.built:  # Keras sees to it when the model itself is called, but not here
            self.build(ids_BT.shape)
        length = ids_BT.shape[1]
        if length is None:
            length = tf.shape(ids_BT)[1]
            tf.debugging.assert_less_equal(
                length, self.config.max_length, "sequence is longer than max_length"
            )
        elif length > self.config.max_length:
            raise ValueError(
                f"sequences must be at most max_length={self.config.max_length} tokens, "
                f"got {length}"
            )
        x_BTD = self.token_embedding(ids_BT) + self.position_embedding(tf.range(length))
        x_BTD = self.embedding_dropout(x_BTD, training=training)
        for block in self.blocks:
            x_BTD = block(x_BTD, training=training)
        return self.final_norm(x_BTD)

    def project(self, hidden_BTD: tf.Tensor) -> tf.Tensor:
        """Returns float32 [..., V]: logits of hidden states, by the tied token embedding."""
        embedding_VD = tf.cast(self.token_embedding.embeddings, hidden_BTD.dtype)
        return tf.cast(tf.matmul(hidden_BTD, embedding_VD, transpose_b=True), tf.float32)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape, self.config.vocab_size)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | self.config.to_dict()
