"""One optimiser update under any tf.distribute strategy."""

# Shapes: G sequences of the global batch, B of one replica's share, M of a micro-batch, T context,
# U = T + 1.

import dataclasses
import math
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from model.config import GPT2Config
from model.gpt2 import GPT2
from model.gradients import Gradients
from model.loss import token_nll
from model.optimizer import make_optimizer, make_schedule
from model.packing import PackedTokens
from model.tokenizer import END_OF_TEXT
from model.training_config import TrainingConfig
from model.update_guards import LossScale, SpikeGuard


@dataclasses.dataclass(frozen=True)
class StepResult:
    """Says what a step did.

    Args:
        loss: The batch's mean, nats a token.
        gradient_norm: The gradient's global norm before clipping.
        applied: Whether the weights were updated: not where the norm is not finite, nor on a spike.
    """

    loss: float
    gradient_norm: float
    applied: bool


class TrainStep:
    """Holds a model and its optimiser, and updates them by a global batch at a time.

    Every replica takes its share of the batch and divides its summed loss by the tokens of the
    whole batch, so that the sum of the replicas' gradients is the gradient of the batch's mean
    loss, however the batch is shared out, and however a share is cut into micro-batches.

    Args:
        model_config: The model's sizes.
        config: How to train.
        strategy: Where the model's variables lie.
        document_start: The id that begins a document, for the document mask.
        initial: If given, the model whose weights this one starts with.
    """

    def __init__(
        self,
        model_config: GPT2Config,
        config: TrainingConfig,
        strategy: tf.distribute.Strategy,
        document_start: int = END_OF_TEXT,
        initial: GPT2 | None = None,
    ) -> None:
        self._config = config
        self._strategy = strategy
        self._document_start = document_start if config.document_mask else None
        self._schedule = make_schedule(
            steps=config.steps,
            learning_rate=config.learning_rate,
            final_learning_rate_share=config.final_learning_rate_share,
            warmup_steps=config.warmup_steps,
        )
        keras.utils.set_random_seed(config.seed)
        with strategy.scope():
            self.model = GPT2(**model_config.to_dict(), dtype=config.precision)
            self.model.build((None, model_config.max_length))
            if initial is not None:
                _assign(self.model.trainable_variables, initial.trainable_variables)
            self.optimizer = make_optimizer(
                self.model.trainable_variables,
                weight_decay=config.weight_decay,
                beta_1=config.beta_1,
                beta_2=config.beta_2,
                average_decay=config.average_decay,
                xla=config.xla,
            )
            self._steps = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._loss_scale = LossScale() if config.precision == "mixed_float16" else None
            self._spike_guard = SpikeGuard(config.skip_spikes) if config.skip_spikes else None
        self._gradients = Gradients(self.model, config, self._document_start)

    @property
    def state(self) -> dict[str, tf.Module]:
        """All that a checkpoint must hold for training to go on exactly, by name."""
        guards = {"loss_scale": self._loss_scale, "spike_guard": self._spike_guard}
        return {"model": self.model, "optimizer": self.optimizer, "steps": self._steps} | {
            name: guard for name, guard in guards.items() if guard is not None
        }

    @property
    def steps_done(self) -> int:
        """How many batches the model has seen, in this process and before."""
        return int(self._steps.numpy())

    @property
    def updates_skipped(self) -> int:
        """How many of those steps were not applied."""
        return self.steps_done - int(self.optimizer.iterations.numpy())

    @property
    def loss_scale(self) -> float:
        """What the loss is multiplied by before its gradient is taken; not 1 in float16 alone."""
        return float(self._loss_scale.value.numpy()) if self._loss_scale else 1.0

    def learning_rate(self, step: int) -> float:
        """Returns the learning rate of a step by its number, the first being 1."""
        return float(self._schedule(step))

    def update(self, ids: np.ndarray, weights: np.ndarray) -> StepResult:
        """Takes one step.

        Args:
            ids: int32 [G, T + 1].
            weights: float32 [G, T]: 1 for a target, 0 for filling.
        """
        loss, norm, applied = self._update(
            self._shares(ids), self._shares(weights), tf.constant(1 / weights.sum(), tf.float32)
        )
        return StepResult(float(loss), float(norm), bool(applied))

    def mean_nll(
        self, tokens: PackedTokens, batches: int, must_stop: Callable[[], bool] = lambda: False
    ) -> float | None:
        """Returns nats a token on the first `batches` batches of a fixed order of `tokens`.

        `must_stop` is asked before each batch. Where it says so, there is no figure but None.
        """
        size = self._config.global_batch_size
        total, count = 0.0, 0.0
        for first in range(0, min(batches * size, tokens.num_rows), size):
            if must_stop():
                return None
            ids, weights = tokens.batch(seed=0, first=first, count=size)
            weights[max(0, tokens.num_rows - first) :] = 0  # rows of a second epoch
            total += float(self._nll(self._shares(ids), self._shares(weights)))
            count += float(weights.sum())
        return total / count

    def copy_model(self) -> GPT2:
        """Returns the model outside of the strategy, in float32: an ordinary one to export."""
        model = GPT2(**self.model.config.to_dict())
        model.build((None, model.config.max_length))
        _assign(
            model.trainable_variables, self.optimizer.averages or self.model.trainable_variables
        )
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
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        scaled_up = self._loss_scale.value.read_value() if self._loss_scale else tf.constant(1.0)
        norm_limit = self._spike_guard.limit() if self._spike_guard else tf.constant(math.inf)
        losses, norms = self._strategy.run(
            self._replica_update, args=(ids, weights, scale, scaled_up, norm_limit)
        )
        loss = self._strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)
        norm = self._strategy.reduce(tf.distribute.ReduceOp.MEAN, norms, axis=None)
        is_finite = tf.math.is_finite(norm)
        if self._loss_scale:
            self._loss_scale.next(is_finite)
        if self._spike_guard:
            self._spike_guard.next(norm, is_finite)
        self._steps.assign_add(1)
        return loss, norm, is_finite & (norm <= norm_limit)

    def _replica_update(
        self,
        ids_BU: tf.Tensor,
        weights_BT: tf.Tensor,
        scale: tf.Tensor,
        scaled_up: tf.Tensor,
        norm_limit: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        replica = tf.distribute.get_replica_context()
        replica_id = tf.cast(replica.replica_id_in_sync_group, tf.uint32)
        step = tf.cast(self._steps.read_value(), tf.uint32)
        draw = step * tf.constant(replica.num_replicas_in_sync, tf.uint32) + replica_id
        loss, gradients = self._gradients(ids_BU, weights_BT, scale * scaled_up, draw)
        gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        norm = tf.linalg.global_norm(gradients) / scaled_up
        # tf.clip_by_global_norm would do, but makes NaN of everything where the limit is infinite.
        shrink = tf.minimum(1.0, self._config.gradient_clip_norm / norm) / scaled_up
        rate = tf.cast(self._schedule(step + 1), tf.float32)

        def apply() -> None:
            self.optimizer.update(gradients, self.model.trainable_variables, rate, shrink)

        tf.cond(tf.math.is_finite(norm) & (norm <= norm_limit), apply, lambda: None)
        return loss / scaled_up, norm

    @tf.function
    def _nll(self, ids: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        sums = self._strategy.run(self._summed_nll, args=(ids, weights))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

    def _summed_nll(self, ids_BU: tf.Tensor, weights_BT: tf.Tensor) -> tf.Tensor:
        count = self._config.accumulation_steps
        sums_K = tf.map_fn(
            self._micro_batch_nll,
            tuple(tf.reshape(x, [count, -1, x.shape[1]]) for x in (ids_BU, weights_BT)),
            fn_output_signature=tf.float32,
            parallel_iterations=1,  # as in training, for the memory of one micro-batch
        )
        return tf.reduce_sum(sums_K)

    def _micro_batch_nll(self, micro_batch: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        ids_MU, weights_MT = micro_batch
        with self._averages():
            hidden_MTD = self.model.hidden_states(
                ids_MU[:, :-1], document_start=self._document_start
            )
            nll_N = token_nll(
                tf.reshape(hidden_MTD, [-1, hidden_MTD.shape[-1]]),
                self.model.output_embedding(),
                tf.reshape(ids_MU[:, 1:], [-1]),
                self._config.loss_chunk_size,
            )
        return tf.reduce_sum(nll_N * tf.reshape(weights_MT, [-1]))

    def _averages(self) -> keras.StatelessScope:
        """Returns a scope in which the model's weights are their averages, where there are any."""
        averages = self.optimizer.averages
        variables = self.model.trainable_variables if averages else []
        return keras.StatelessScope(list(zip(variables, averages, strict=True)))


def _assign(variables: list[keras.Variable], values: list[keras.Variable]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value.numpy())
