"""The loss of a replica's share of a batch, and its gradients."""

# Shapes: B one replica's share of the batch, M a micro-batch, T context, U = T + 1, D embedding
# width, V vocabulary.

import keras
import tensorflow as tf

from model.block_calls import BlockCalls
from model.compilation import compilation_of, compiled
from model.dropout import Dropout
from model.gpt2 import GPT2
from model.loss import summed_cross_entropy
from model.training_config import TrainingConfig

# A dropout layer draws once for each chunk of queries, counting up from the seed that it is given.
_DRAWS = 256


class Gradients:
    """Computes loss and gradients of a model, the batch cut into micro-batches.

    The blocks and what comes after them are compiled, where the configuration says so, as
    `model/compilation.py` describes; what is around them is a few small operations.

    Args:
        model: A built model.
        config: How to train it.
        document_start: The id that begins a document, for the document mask; None for no mask.
    """

    def __init__(self, model: GPT2, config: TrainingConfig, document_start: int | None) -> None:
        self._model = model
        self._config = config
        self._document_start = document_start
        self._compilation = compilation_of(config)
        self._call_block = BlockCalls(model.blocks, config.recompute, self._compilation)
        self._head = compiled(self._loss_by_stream, self._compilation)
        self._dropout_states = [
            layer.seed_generator.state
            for layer in model._flatten_layers()
            if isinstance(layer, Dropout) and layer.rate > 0
        ]

    def __call__(
        self, ids_BU: tf.Tensor, weights_BT: tf.Tensor, scale: tf.Tensor, draw: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns loss, float32 scalar, and a gradient for each of the trainable variables.

        Args:
            ids_BU: int [B, T + 1].
            weights_BT: float32 [B, T].
            scale: What the weighted sum of all positions' nats is multiplied by.
            draw: uint32, the number of dropout's draw.
        """
        count = self._config.accumulation_steps
        weights_BT *= scale
        if count == 1:
            return self._of_micro_batch(ids_BU, weights_BT, draw)
        ids_KMU = tf.reshape(ids_BU, [count, -1, ids_BU.shape[1]])
        weights_KMT = tf.reshape(weights_BT, [count, -1, weights_BT.shape[1]])

        def add_micro_batch(k: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
            loss, gradients = self._of_micro_batch(
                ids_KMU[k], weights_KMT[k], draw * count + tf.cast(k, tf.uint32)
            )
            terms = (loss, *gradients)
            return (k + 1, *(total + term for total, term in zip(sums, terms, strict=True)))

        zeros = [tf.zeros(v.shape, tf.float32) for v in self._model.trainable_variables]
        _, loss, *gradients = tf.while_loop(
            lambda k, *_: k < count,
            add_micro_batch,
            [0, tf.constant(0.0), *zeros],
            parallel_iterations=1,  # more would hold several micro-batches' activations at once
        )
        return loss, gradients

    def _of_micro_batch(
        self, ids_MU: tf.Tensor, weights_MT: tf.Tensor, draw: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        embedding = self._model.token_embedding.embeddings
        variables = [variable.value for variable in self._model.trainable_variables]
        with self._dropout_seeds(draw), tf.GradientTape() as tape:
            stream_MTD = self._model.residual_stream(
                ids_MU[:, :-1], True, self._document_start, self._call_block
            )
        values = [v.value for v in (*self._model.final_norm.trainable_variables, embedding)]
        loss, d_stream_MTD, *d_values = self._head(stream_MTD, values, ids_MU[:, 1:], weights_MT)
        gradients = tape.gradient(stream_MTD, variables, output_gradients=d_stream_MTD)
        # The embedding has two gradients: of the projection, which is dense, and of the look-up,
        # a few rows. Summed by TensorFlow they would be three more arrays of V rows.
        for value, d_value in zip(values, d_values, strict=True):
            index = next(i for i, variable in enumerate(variables) if variable is value)
            of_rows = gradients[index]
            gradients[index] = d_value if of_rows is None else _add_rows(d_value, of_rows)
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def _loss_by_stream(
        self,
        stream_MTD: tf.Tensor,
        values: list[tf.Tensor],
        targets_MT: tf.Tensor,
        weights_MT: tf.Tensor,
    ) -> list[tf.Tensor]:
        """Returns the loss and its gradients to the stream and to values of what comes after it."""
        *norm_values, embedding_VD = values
        pairs = zip(self._model.final_norm.trainable_variables, norm_values, strict=True)
        with tf.GradientTape() as tape, keras.StatelessScope(list(pairs)):
            tape.watch([stream_MTD, *values])
            hidden_MTD = self._model.final_norm(stream_MTD)
            loss = summed_cross_entropy(
                hidden_MTD,
                tf.cast(embedding_VD, hidden_MTD.dtype),
                targets_MT,
                weights_MT,
                self._config.loss_chunk_size,
                vocab_multiple=self._config.vocab_multiple,
                compilation=self._compilation,
            )
        return [loss, *tape.gradient(loss, [stream_MTD, *values])]

    def _dropout_seeds(self, draw: tf.Tensor) -> keras.StatelessScope:
        """Returns a scope in which dropout's masks are a function of seed, step and replica.

        Keras draws them from a variable that each layer counts up; that would be state to
        restore, and XLA can't update it on two replicas. In this scope it reads our numbers.
        """
        first = self._config.seed * len(self._dropout_states)
        # The product loses the number's highest bits, which come 2**24 draws later.
        highest = tf.bitwise.bitwise_and(draw, tf.constant(0xFF000000, tf.uint32))
        return keras.StatelessScope(
            [
                (state, tf.stack([tf.constant(first + index, tf.uint32) ^ highest, draw * _DRAWS]))
                for index, state in enumerate(self._dropout_states)
            ]
        )


def _add_rows(dense: tf.Tensor, rows: tf.IndexedSlices) -> tf.Tensor:
    """Returns their sum, in the memory of `dense`, which must have no other reader.

    `tf.tensor_scatter_nd_add` would copy it.
    """
    # On a GPU rows that are there twice would be added at the same time.
    indices, place = tf.unique(rows.indices)
    values = tf.math.unsorted_segment_sum(rows.values, place, tf.size(indices))
    return tf.raw_ops.InplaceAdd(x=dense, i=indices, v=values)
