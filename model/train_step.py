"""One optimiser update under any tf.distribute strategy."""

# Shapes: G sequences of the global batch, B of one replica's share, T context.

import keras
import numpy as np
import tensorflow as tf

from model.config import GPT2Config
from model.gpt2 import GPT2
from model.loss import summed_cross_entropy, token_nll
from model.optimizer import make_optimizer
from model.packing import PackedTokens
from model.training_config import TrainingConfig


class TrainStep:
    """Holds a model and its optimiser, and updates them by a global batch at a time.

    Every replica takes its share of the batch and divides its summed loss by the tokens of the
    whole batch, so that the sum of the replicas' gradients is the gradient of the batch's mean
    loss, however the batch is shared out.

    Args:
        model_config: The model's sizes.
        config: How to train.
        strategy: Where the model's variables lie.
    """

    def __init__(
        self, model_config: GPT2Config, config: TrainingConfig, strategy: tf.distribute.Strategy
    ) -> None:
        self._config = config
        self._strategy = strategy
        keras.utils.set_random_seed(config.seed)
        with strategy.scope():
            self.model = GPT2(**model_config.to_dict())
            self.model.build((None, model_config.max_length))
            self.optimizer = make_optimizer(
                self.model.trainable_variables,
                steps=config.steps,
                learning_rate=config.learning_rate,
                final_learning_rate_share=config.final_learning_rate_share,
                warmup_steps=config.warmup_steps,
                weight_decay=config.weight_decay,
                beta_1=config.beta_1,
                beta_2=config.beta_2,
            )
        # A whole step under XLA fails where it touches the variables of two replicas, and
        # forward and backward pass alone are where the time goes.
        self._gradients = tf.function(self._loss_and_gradients, jit_compile=config.xla)
        self._dropout_states = [
            layer.seed_generator.state
            for layer in self.model._flatten_layers()
            if isinstance(layer, keras.layers.Dropout) and layer.rate > 0
        ]

    @property
    def state(self) -> dict[str, tf.Module]:
        """All that a checkpoint must hold for training to go on exactly, by name."""
        return {"model": self.model, "optimizer": self.optimizer}

    @property
    def steps_done(self) -> int:
        """How many updates the model has had, in this process and before."""
        return int(self.optimizer.iterations.numpy())

    def learning_rate(self, step: int) -> float:
        """Returns the learning rate of the update that follows `step` others."""
        return float(self.optimizer._learning_rate(step))

    def update(self, ids: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
        """Applies one update.

        Args:
            ids: int32 [G, T + 1].
            weights: float32 [G, T]: 1 for a target, 0 for filling.

        Returns:
            The batch's mean loss in nats a token, and the gradient's global norm before clipping.
        """
        loss, norm = self._update(
            self._shares(ids), self._shares(weights), tf.constant(1 / weights.sum(), tf.float32)
        )
        return float(loss), float(norm)

    def mean_nll(self, tokens: PackedTokens, batches: int) -> float:
        """Returns nats a token on the first `batches` batches of a fixed order of `tokens`."""
        size = self._config.global_batch_size
        total, count = 0.0, 0.0
        for first in range(0, min(batches * size, tokens.num_rows), size):
            ids, weights = tokens.batch(seed=0, first=first, count=size)
            weights[max(0, tokens.num_rows - first) :] = 0  # rows of a second epoch
            total += float(self._nll(self._shares(ids), self._shares(weights)))
            count += float(weights.sum())
        return total / count

    def copy_model(self) -> GPT2:
        """Returns the model outside of the strategy, as an ordinary one to export."""
        model = GPT2(**self.model.config.to_dict())
        model.build((None, model.config.max_length))
        model.set_weights(self.model.get_weights())
        return model

    def _shares(self, batch: np.ndarray) -> tf.Tensor:
        """Returns the replicas' equal shares of a global batch, in order."""
        share = len(batch) // self._strategy.num_replicas_in_sync

        def of_replica(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
            first = context.replica_id_in_sync_group * share
            return tf.constant(batch[first : first + share])

        return self._strategy.experimental_distribute_values_from_function(of_replica)

    @tf.function
    def _update(
        self, ids: tf.Tensor, weights: tf.Tensor, scale: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        losses, norms = self._strategy.run(self._replica_update, args=(ids, weights, scale))
        loss = self._strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)
        return loss, self._strategy.reduce(tf.distribute.ReduceOp.MEAN, norms, axis=None)

    def _replica_update(
        self, ids_BU: tf.Tensor, weights_BT: tf.Tensor, scale: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        replica = tf.distribute.get_replica_context()
        replica_id = tf.cast(replica.replica_id_in_sync_group, tf.uint32)
        step = tf.cast(self.optimizer.iterations.value, tf.uint32)
        draw = step * tf.constant(replica.num_replicas_in_sync, tf.uint32) + replica_id
        loss, gradients = self._gradients(ids_BU, weights_BT, scale, draw)
        gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        norm = tf.linalg.global_norm(gradients)
        # tf.clip_by_global_norm would do, but makes NaN of everything where the limit is infinite.
        shrink = tf.minimum(1.0, self._config.gradient_clip_norm / norm)
        gradients = [gradient * shrink for gradient in gradients]
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return loss, norm

    def _loss_and_gradients(
        self, ids_BU: tf.Tensor, weights_BT: tf.Tensor, scale: tf.Tensor, draw: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns a share's loss and gradients; `draw` is the number of the dropout's draw."""
        variables = [variable.value for variable in self.model.trainable_variables]
        with tf.GradientTape() as tape, self._dropout_seeds(draw):
            hidden_BTD = self.model.hidden_states(ids_BU[:, :-1], training=True)
            loss = scale * summed_cross_entropy(
                hidden_BTD,
                tf.convert_to_tensor(self.model.token_embedding.embeddings),
                ids_BU[:, 1:],
                weights_BT,
                self._config.loss_chunk_size,
            )
        return loss, [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]

    def _dropout_seeds(self, draw: tf.Tensor) -> keras.StatelessScope:
        """Returns a scope in which dropout's masks are a function of seed, step and replica.

        Keras draws them from a variable that each layer counts up; that would be state to
        restore, and XLA can't update it on two replicas. In this scope it reads our numbers.
        """
        first = self._config.seed * len(self._dropout_states)
        return keras.StatelessScope(
            [
                (state, tf.stack([tf.constant(first + index, tf.uint32), draw]))
                for index, state in enumerate(self._dropout_states)
            ]
        )

    @tf.function
    def _nll(self, ids: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        sums = self._strategy.run(self._summed_nll, args=(ids, weights))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

    def _summed_nll(self, ids_BU: tf.Tensor, weights_BT: tf.Tensor) -> tf.Tensor:
        hidden_BTD = self.model.hidden_states(ids_BU[:, :-1])
        nll_N = token_nll(
            tf.reshape(hidden_BTD, [-1, hidden_BTD.shape[-1]]),
            tf.convert_to_tensor(self.model.token_embedding.embeddings),
            tf.reshape(ids_BU[:, 1:], [-1]),
            self._config.loss_chunk_size,
        )
        return tf.reduce_sum(nll_N * tf.reshape(weights_BT, [-1]))
