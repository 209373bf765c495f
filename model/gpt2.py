"""GPT-2 as a Keras model."""

# Shapes: B batch, T positions, D embedding width, V vocabulary.

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from model.config import POSITION_STDDEV, TOKEN_STDDEV, GPT2Config
from model.dropout import Dropout
from model.transformer_block import TransformerBlock

CallBlock = Callable[[TransformerBlock, tf.Tensor, tf.Tensor | None], tf.Tensor]


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
        self.embedding_dropout = Dropout(dropout, dtype=self.dtype_policy)
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

    def hidden_states(
        self,
        ids_BT: tf.Tensor,
        training: bool = False,
        document_start: int | None = None,
    ) -> tf.Tensor:
        """Returns float [B, T, D]: the normalised stream that the output projection reads.

        Args:
            ids_BT: int [B, T], T <= max_length.
            training: Whether dropout is active.
            document_start: As in `residual_stream`.

        Raises:
            ValueError: As `residual_stream`.
        """
        return self.final_norm(self.residual_stream(ids_BT, training, document_start))

    def residual_stream(
        self,
        ids_BT: tf.Tensor,
        training: bool = False,
        document_start: int | None = None,
        call_block: CallBlock | None = None,
    ) -> tf.Tensor:
        """Returns float [B, T, D]: the stream that leaves the last block.

        Args:
            ids_BT: int [B, T], T <= max_length.
            training: Whether dropout is active.
            document_start: The id that begins each document in a row of several ones. If it is
                given, no position sees another document, and each document's positions are
                counted from its start.
            call_block: If given, what is called in training with each block, its input and
                the documents, instead of the block.

        Raises:
            ValueError: T is known and exceeds `max_length`, or the ids are no integers or no
                matrix, or, outside of a graph, not all in the vocabulary. An unknown T is checked
                when the graph runs (`InvalidArgumentError`).
        """
        ids_BT = tf.convert_to_tensor(ids_BT)
        self._check(ids_BT)
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
        positions, documents_BT = tf.range(length), None
        if document_start is not None:
            documents_BT, positions = split_documents(ids_BT, document_start)
        x_BTD = self.token_embedding(ids_BT) + self.position_embedding(positions)
        x_BTD = self.embedding_dropout(x_BTD, training=training)
        for block in self.blocks:
            if call_block:
                x_BTD = call_block(block, x_BTD, documents_BT)
            else:
                x_BTD = block(x_BTD, documents_BT=documents_BT, training=training)
        return x_BTD

    def _check(self, ids_BT: tf.Tensor) -> None:
        if not ids_BT.dtype.is_integer or ids_BT.shape.rank != 2:
            raise ValueError(
                f"ids must be integers of shape [B, T], got {ids_BT.dtype.name} of shape "
                f"{ids_BT.shape}"
            )
        # Keras counts negative ids from the end. In a graph a look at all ids would cost time.
        if tf.executing_eagerly() and tf.size(ids_BT) > 0:
            for id_ in (tf.reduce_min(ids_BT), tf.reduce_max(ids_BT)):
                if not 0 <= id_ < self.config.vocab_size:
                    raise ValueError(
                        f"ids must be in [0, vocab_size={self.config.vocab_size}), got {int(id_)}"
                    )

    def project(self, hidden_BTD: tf.Tensor) -> tf.Tensor:
        """Returns float32 [..., V]: logits of hidden states, by the tied token embedding."""
        logits_BTV = tf.matmul(hidden_BTD, self.output_embedding(), transpose_b=True)
        return tf.cast(logits_BTV, tf.float32)

    def output_embedding(self) -> tf.Tensor:
        """Returns float [V, D]: the token embedding, by which hidden states become logits.

        Of the type that hidden states have.
        """
        layer = self.token_embedding
        embedding_VD = tf.convert_to_tensor(layer.embeddings)
        if self.is_int8:
            embedding_VD = tf.cast(embedding_VD, tf.float32) / layer.embeddings_scale[:, None]
        return tf.cast(embedding_VD, self.compute_dtype)

    @property
    def is_int8(self) -> bool:
        """Whether the weights were rounded, see `model/int8.py`."""
        return self.token_embedding.quantization_mode == "int8"

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape, self.config.vocab_size)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | self.config.to_dict()


def split_documents(ids_BT: tf.Tensor, start: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns each position's document, counted in its row, and its distance from the start.

    Args:
        ids_BT: int [B, T].
        start: The id that begins a document. What stands before a row's first one is a document
            too, the end of one: its distances are counted from the row's begin.

    Returns:
        int32 [B, T], int32 [B, T].
    """
    batch, length = tf.unstack(tf.shape(ids_BT))
    documents_BT = tf.cumsum(tf.cast(ids_BT == start, tf.int32), axis=1)
    positions_BT = tf.broadcast_to(tf.range(length), [batch, length])
    # Numbered through all rows, so that each document's first position is one minimum.
    numbered_BT = documents_BT + (length + 1) * tf.range(batch)[:, None]
    first = tf.math.unsorted_segment_min(positions_BT, numbered_BT, batch * (length + 1))
    return documents_BT, positions_BT - tf.gather(first, numbered_BT)
