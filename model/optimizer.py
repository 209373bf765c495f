"""The optimiser that GPT-2 is trained with: AdamW, decay on matrices, warm-up and cosine."""

from typing import Any

import keras
import tensorflow as tf


class AdamW(keras.optimizers.AdamW):
    """Keras' AdamW (Loshchilov & Hutter 2019) with an update for our training step.

    `apply` is Keras' own. `update` differs from it in that it

    - expects gradients that are already summed over the replicas: clipping by the global norm
      needs the sum first, and Keras would sum them again;
    - has one compiled function for clipping, moments, decay and average, which reads and writes
      each number once; Keras makes a dozen passes over memory;
    - works on one replica's variables without a word to the others, which all do the same. So it
      may stand in a `tf.cond`, which is how a step is skipped.

    `iterations` counts the updates that were applied, as the moments' bias correction needs it.

    Args:
        average_decay: If given, `averages` follow the variables: an exponential moving average,
            which forgets them by this factor in each update. Early ones are forgotten faster: in
            the update after n others by n / (n + 10) at most.
        xla: Whether `update` is compiled.
        **settings: Those of `keras.optimizers.AdamW`.
    """

    def __init__(
        self, average_decay: float | None = None, xla: bool = True, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.average_decay = average_decay
        self.averages: list[keras.Variable] = []
        self._assign = tf.function(self._assign_next, jit_compile=xla)

    def build(self, variables: list[keras.Variable]) -> None:
        super().build(variables)
        if self.average_decay is not None:
            self.averages = self.add_optimizer_variables(variables, "average")
            for average, variable in zip(self.averages, variables, strict=True):
                average.assign(variable)

    def update(
        self,
        gradients: list[tf.Tensor],
        variables: list[keras.Variable],
        learning_rate: tf.Tensor,
        shrink: tf.Tensor,
    ) -> None:
        """Updates this replica's share of `variables`; to be called in replica context.

        Args:
            gradients: float32, of the shape of each variable, summed over the replicas.
            variables: Those that the optimiser was built on, float32, in the same order.
            learning_rate: float32 scalar.
            shrink: float32 scalar: what the gradients are multiplied by.
        """
        count = tf.cast(self.iterations.value, tf.float32) + 1.0
        for index, (gradient, variable) in enumerate(zip(gradients, variables, strict=True)):
            states = [variable, self._momentums[index], self._velocities[index]]
            if self.average_decay is not None:
                states.append(self.averages[index])
            decay = self.weight_decay if self._use_weight_decay(variable) else 0.0
            self._assign(
                # A replica's own variables, by their handles: no other replica is told.
                [state.value.handle for state in states],
                gradient,
                tf.constant(decay or 0.0),
                learning_rate,
                shrink,
                count,
            )
        tf.raw_ops.AssignAddVariableOp(
            resource=self.iterations.value.handle, value=tf.ones([], self.iterations.dtype)
        )

    def _assign_next(
        self,
        handles: list[tf.Tensor],
        gradient: tf.Tensor,
        decay: tf.Tensor,
        learning_rate: tf.Tensor,
        shrink: tf.Tensor,
        count: tf.Tensor,
    ) -> None:
        """Assigns weight, moments and average in place: Loshchilov & Hutter, algorithm 2."""
        weight, mean, square, *average = (_read(handle, gradient.shape) for handle in handles)
        gradient *= shrink
        mean += (1 - self.beta_1) * (gradient - mean)
        square += (1 - self.beta_2) * (gradient**2 - square)
        unbiased_mean = mean / (1 - self.beta_1**count)
        unbiased_square = square / (1 - self.beta_2**count)
        step = unbiased_mean / (tf.sqrt(unbiased_square) + self.epsilon)
        weight -= learning_rate * (step + decay * weight)
        if self.average_decay is not None:
            forget = tf.maximum(1.0 - self.average_decay, 10.0 / (count + 9.0))
            average = [average[0] + forget * (weight - average[0])]
        for handle, value in zip(handles, [weight, mean, square, *average], strict=True):
            tf.raw_ops.AssignVariableOp(resource=handle, value=value)


def _read(handle: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)
    return tf.ensure_shape(value, shape)


def make_optimizer(
    variables: list[keras.Variable],
    *,
    weight_decay: float,
    beta_1: float,
    beta_2: float,
    average_decay: float | None = None,
    xla: bool = True,
) -> AdamW:
    """Returns AdamW built on `variables`, to be called in the strategy's scope.

    Weight decay applies to matrices only: biases and normalisation scales are vectors, and
    shrinking those costs accuracy (nanoGPT does the same). Epsilon is that of Brown et al. 2020,
    appendix B.
    """
    optimizer = AdamW(
        average_decay, xla, weight_decay=weight_decay, beta_1=beta_1, beta_2=beta_2, epsilon=1e-8
    )
    optimizer.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2])
    optimizer.build(variables)
    return optimizer


def make_schedule(
    *, steps: int, learning_rate: float, final_learning_rate_share: float, warmup_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns the learning rate as a function of a step's number, the first step being 1.

    It rises linearly to its peak at step `warmup_steps`, then follows half a cosine down to
    `final_learning_rate_share` of it at the last step (Loshchilov & Hutter 2017; Brown et al.
    2020, appendix B).
    """
    if warmup_steps == 0:
        return keras.optimizers.schedules.CosineDecay(
            learning_rate, decay_steps=steps, alpha=final_learning_rate_share
        )
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=max(1, steps - warmup_steps),
        alpha=final_learning_rate_share,
    )
