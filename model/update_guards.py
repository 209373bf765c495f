"""What decides whether an update is applied: gradients that overflow, and those that jump."""

import tensorflow as tf


class LossScale(tf.Module):
    """A factor on the loss that keeps float16's small gradients from vanishing.

    Micikevicius et al. 2018, section 3.2: gradients of a scaled loss are divided by the scale.
    It is halved when they overflow, and such an update is not to be applied; after
    `growth_steps` updates without it is doubled. To be made in the strategy's scope.

    Args:
        growth_steps: Updates after which it grows.
    """

    def __init__(self, growth_steps: int = 2000) -> None:
        super().__init__()
        self._growth_steps = growth_steps
        self.value = _state(2.0**15)
        self._good_steps = _state(0.0)

    def next(self, is_finite: tf.Tensor) -> None:
        """Takes note of whether a step's gradients were finite; in cross-replica context."""
        good_steps = tf.where(is_finite, self._good_steps + 1.0, 0.0)
        grows = good_steps >= self._growth_steps
        self.value.assign(
            tf.where(is_finite, tf.where(grows, 2.0, 1.0), 0.5) * self.value.read_value()
        )
        self._good_steps.assign(tf.where(grows, 0.0, good_steps))


class SpikeGuard(tf.Module):
    """Tells a step whose gradient norm is far above those before it.

    Far means more than `deviations` standard deviations above the mean, both exponentially
    weighted over about `steps` steps. Nothing is a spike in the first `steps` steps. A spike enters
    the statistics as if it had just reached the limit: one alone hardly moves them, while
    a norm that has risen for good does, and is let through in the end. To be made in the
    strategy's scope.

    Args:
        deviations: The limit.
        steps: The window.
    """

    def __init__(self, deviations: float, steps: int = 100) -> None:
        super().__init__()
        self._deviations = deviations
        self._steps = steps
        self._count = _state(0.0)
        self._mean = _state(0.0)
        self._variance = _state(0.0)

    def limit(self) -> tf.Tensor:
        """Returns the norm above which a step is a spike, float32 scalar; infinite at first."""
        limit = self._mean + self._deviations * tf.sqrt(self._variance)
        return tf.where(self._count >= self._steps, limit, float("inf"))

    def next(self, norm: tf.Tensor, is_finite: tf.Tensor) -> None:
        """Takes note of a step's norm, if it is finite; in cross-replica context."""
        count = self._count + 1.0
        share = tf.where(is_finite, tf.maximum(1.0 / count, 1.0 / self._steps), 0.0)
        change = tf.where(is_finite, tf.minimum(norm, self.limit()) - self._mean, 0.0)
        # The mean square less the squared mean would be the same, but for norms that differ little
        # from their mean float32 loses the difference.
        self._mean.assign_add(share * change)
        self._variance.assign((1.0 - share) * (self._variance + share * change**2))
        self._count.assign(tf.where(is_finite, count, self._count))


def _state(value: float) -> tf.Variable:
    # Every replica comes to the same value, so that any one will do.
    return tf.Variable(
        value,
        trainable=False,
        dtype=tf.float32,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
