"""The optimiser that GPT-2 is trained with: AdamW, decay on matrices, warm-up and cosine."""

from typing import Any

import keras
import tensorflow as tf


class AdamW(keras.optimizers.AdamW):
    """Keras' AdamW (Loshchilov & Hutter 2019) with two changes for our training step.

    It expects gradients that are already summed over the replicas: the step sums them itself,
    since clipping by the global norm needs the sum first, and Keras would sum them again. And
    each variable is updated by TensorFlow's one fused Adam kernel, the same formula that Keras
    spells out in a dozen ops, each a pass over memory.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value, tf.float32) + 1.0
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def make_optimizer(
    variables: list[keras.Variable],
    *,
    steps: int,
    learning_rate: float,
    final_learning_rate_share: float,
    warmup_steps: int,
    weight_decay: float,
    beta_1: float,
    beta_2: float,
) -> AdamW:
    """Returns AdamW built on `variables`, to be called in the strategy's scope.

    The learning rate rises linearly from 0 over `warmup_steps`, then follows half a cosine down
    to `final_learning_rate_share` of its peak at `steps` (Loshchilov & Hutter 2017; Brown et al.
    2020, appendix B). Weight decay applies to matrices only: biases and normalisation scales
    are vectors, and shrinking those costs accuracy (Brown et al. 2020; nanoGPT does the same).
    """
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=max(1, steps - warmup_steps),
        alpha=final_learning_rate_share,
    )
    if warmup_steps == 0:
        schedule = keras.optimizers.schedules.CosineDecay(
            learning_rate, decay_steps=steps, alpha=final_learning_rate_share
        )
    optimizer = AdamW(schedule, weight_decay=weight_decay, beta_1=beta_1, beta_2=beta_2)
    optimizer.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2])
    optimizer.build(variables)
    return optimizer
