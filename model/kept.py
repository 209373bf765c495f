"""Values that a forward pass hands to a backward pass that is a program of its own.

Automatic differentiation hands over whatever it happens to read, weights and cheap intermediates
included. Here the layers say what is worth it, outcomes of matrix products above all, and the
backward pass computes everything else again: selective recomputation (Korthikanti et al. 2022,
"Reducing Activation Recomputation in Large Transformer Models", section 5).

The backward pass runs the same code as the forward pass under a gradient tape, with the kept
values in their places. What led to them is then read by nothing, and the compiler drops it.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

Compute = Callable[[], tf.Tensor]

_current = threading.local()  # strategies trace their replicas in threads


@contextlib.contextmanager
def keeping(with_quadratic: bool = True) -> Iterator[list[tf.Tensor]]:
    """Gives a list to which `kept` adds its values while this context lasts.

    Args:
        with_quadratic: Whether values that grow with the square of the context are among them.
    """
    values: list[tf.Tensor] = []

    def take(compute: Compute, is_quadratic: bool) -> tf.Tensor:
        value = compute()
        if with_quadratic or not is_quadratic:
            values.append(value)
        return value

    with _taking_by(take):
        yield values


@contextlib.contextmanager
def given(values: Sequence[tf.Tensor], with_quadratic: bool = True) -> Iterator[None]:
    """Has `kept` return these values, in order, while this context lasts.

    Args:
        values: What `keeping` gave.
        with_quadratic: As `keeping` had it; if not, such values are computed again.
    """
    left = iter(values)

    def take(compute: Compute, is_quadratic: bool) -> tf.Tensor:
        return next(left) if with_quadratic or not is_quadratic else compute()

    with _taking_by(take):
        yield


def kept_value(compute: Compute, quadratic: bool = False) -> tf.Tensor:
    """Returns `compute()`, or the value that it had in the forward pass; no gradient flows.

    Args:
        compute: What makes the value.
        quadratic: Whether it grows with the square of the context.
    """
    return _current.take(compute, quadratic) if hasattr(_current, "take") else compute()


def kept(compute: Callable[..., tf.Tensor], *inputs: tf.Tensor) -> tf.Tensor:
    """Returns `compute(*inputs)`, or the value that it had in the forward pass.

    Args:
        compute: A function whose gradient does not read its outcome, for that is not at hand.
        *inputs: What the gradient flows to.
    """
    if not hasattr(_current, "take"):
        return compute(*inputs)

    @tf.custom_gradient
    def call(*inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], list[tf.Tensor]]]:
        def gradient(upstream: tf.Tensor) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outcome = compute(*inputs)
            return tape.gradient(outcome, inputs, output_gradients=upstream)

        return kept_value(lambda: compute(*inputs)), gradient

    return call(*inputs)


@contextlib.contextmanager
def _taking_by(take: Callable[[Compute, bool], tf.Tensor]) -> Iterator[None]:
    if hasattr(_current, "take"):
        raise RuntimeError("keeping and given cannot be nested")
    _current.take = take
    try:
        yield
    finally:
        del _current.take
