"""model/update_guards.py against plain Python."""

import math

import numpy as np
import pytest
import tensorflow as tf

from model.train_step import StepResult, TrainStep
from model.update_guards import LossScale, SpikeGuard
from tests.numpy_gpt2 import NumpyGPT2
from tests.small_steps import TINY, batch_of, numpy_loss, ragged_batch, random_step_of, step_of

STEPS = 10


def is_finite(norm: float) -> tf.Tensor:
    return tf.constant(math.isfinite(norm))


def limits(norms: list[float], deviations: float, steps: int = STEPS) -> list[float]:
    """The limit before each norm, after which the guard has taken note of it."""
    guard = SpikeGuard(deviations, steps)
    found = []
    for norm in norms:
        found.append(float(guard.limit()))
        guard.next(tf.constant(norm, tf.float32), is_finite(norm))
    return found


def python_limits(norms: list[float], deviations: float) -> list[float]:
    """The same from all earlier norms and their weights, by the definition of a mean."""
    seen: list[float] = []
    found = []
    for norm in norms:
        limit = math.inf
        weights: list[float] = []
        for count in range(1, len(seen) + 1):
            share = 1 / min(count, STEPS)
            weights = [weight * (1 - share) for weight in weights] + [share]
        if len(seen) >= STEPS:
            mean = math.fsum(w * x for w, x in zip(weights, seen, strict=True))
            spread = math.fsum(w * (x - mean) ** 2 for w, x in zip(weights, seen, strict=True))
            limit = mean + deviations * math.sqrt(spread)
        found.append(limit)
        if math.isfinite(norm):
            seen.append(min(norm, limit))
    return found


def random_norms(count: int) -> list[float]:
    return np.random.default_rng(0).uniform(0.5, 1.5, count).tolist()


@pytest.mark.parametrize("deviations", [1.5, 4.0])
def test_the_limit_lies_so_many_deviations_above_the_weighted_mean(deviations):
    norms = random_norms(40)
    norms[5], norms[20], norms[30], norms[31] = 3.0, 100.0, math.nan, math.inf
    np.testing.assert_allclose(
        limits(norms, deviations), python_limits(norms, deviations), rtol=1e-5
    )


def test_nothing_is_a_spike_in_the_first_steps():
    # The first is the mean of one, the tenth would be far above the mean of nine.
    norms = [5.0, *[1.0] * 8, 1e6, 1.0]
    found = limits(norms, deviations=2.0)
    assert found[:STEPS] == [math.inf] * STEPS
    assert math.isfinite(found[STEPS])


def test_one_spike_hardly_moves_the_limit_but_a_lasting_rise_is_let_through_in_the_end():
    norms = random_norms(30)
    before, after = limits([*norms, 1e4, 1.0], deviations=3.0)[-2:]
    assert 1.5 < before < after < 1.6 * before
    found = limits([*norms, *[1e4] * 100], deviations=3.0)[30:]
    first_that_passes = next(index for index, limit in enumerate(found) if limit >= 1e4)
    assert 2 < first_that_passes < 50
    assert all(limit >= 1e4 for limit in found[first_that_passes:])


def test_a_norm_that_is_not_finite_does_not_enter_the_statistics():
    norms = random_norms(20)
    disturbed = [norms[0], math.nan, *norms[1:15], math.inf, math.nan, *norms[15:]]
    assert limits([*disturbed, 1.0], 3.0)[-1] == limits([*norms, 1.0], 3.0)[-1]
    # Not even as one of the first steps, in which nothing is a spike.
    assert limits([1.0] * 9 + [math.nan] * 5 + [1.0], 3.0)[-1] == math.inf


def test_norms_that_differ_little_from_their_mean_keep_their_spread():
    norms = [1000.0 + 0.01 * (-1) ** index for index in range(50)]
    limit = limits(norms, deviations=10.0)[-1]
    assert limit == pytest.approx(1000.1, abs=0.01)


def test_norms_that_are_all_the_same_are_no_spikes():
    assert all(limit >= np.float32(0.1) for limit in limits([0.1] * 300, deviations=5.0, steps=100))


def test_the_scale_halves_on_an_overflow_and_doubles_after_so_many_good_steps():
    scale = LossScale(growth_steps=3)
    values = []
    for good in (1, 1, 0, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1):
        scale.next(tf.constant(bool(good)))
        values.append(math.log2(float(scale.value)))
    assert values == [15, 15, 14, 14, 14, 15, 15, 15, 14, 13, 13, 13, 14, 14, 14, 15]


def test_the_scale_begins_at_two_to_the_fifteenth_and_grows_after_two_thousand_steps():
    scale = LossScale()
    assert float(scale.value) == 2.0**15
    take_note = tf.function(lambda: scale.next(tf.constant(True)))
    for _ in range(1999):
        take_note()
    assert float(scale.value) == 2.0**15
    take_note()
    assert float(scale.value) == 2.0**16


# --- in a training step ---


def tensors(step: TrainStep) -> list[np.ndarray]:
    """Weights, moments, averages and the count of updates, as they stand."""
    optimizer = step.optimizer
    return [np.array(variable) for variable in (*step.model.variables, *optimizer.variables)]


def test_an_overflow_is_not_applied_and_halves_the_scale():
    step = random_step_of(precision="mixed_float16", average_decay=0.9, skip_spikes=3.0)
    batch = ragged_batch(TINY, 6, 0)
    assert step.update(*batch).applied
    before = tensors(step)
    step.state["loss_scale"].value.assign(2.0**40)
    result = step.update(*batch)
    assert not result.applied
    assert not np.isfinite(result.gradient_norm)
    # The loss itself is not scaled, and what is wrong with the gradients is nothing with it.
    assert result.loss == pytest.approx(numpy_loss(NumpyGPT2(step.model), *batch), rel=0.01)
    for found, expected in zip(tensors(step), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert float(step.state["loss_scale"].value) == 2.0**39
    assert (step.steps_done, step.updates_skipped) == (2, 1)
    step.state["loss_scale"].value.assign(2.0**15)
    step.state["loss_scale"]._good_steps.assign(1999)
    assert step.update(*batch).applied
    assert float(step.state["loss_scale"].value) == 2.0**16
    assert (step.steps_done, step.updates_skipped) == (3, 1)


@pytest.mark.parametrize("xla", [False, True])
def test_a_spike_is_not_applied_but_counted(xla):
    step = random_step_of(average_decay=0.9, skip_spikes=3.0, learning_rate=1e-4, xla=xla)
    step._spike_guard = SpikeGuard(3.0, steps=4)
    results: list[StepResult] = []

    def updates(count: int) -> None:
        for _ in range(count):
            results.append(step.update(*batch_of(TINY, 2, seed=len(results))))

    updates(4)
    gamma = step.model.final_norm.gamma
    calm = np.array(gamma)
    gamma.assign(100 * calm)
    before = tensors(step)
    updates(1)
    assert results[4].gradient_norm > 10 * results[3].gradient_norm
    for found, expected in zip(tensors(step), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert (step.steps_done, step.updates_skipped) == (5, 1)
    gamma.assign(calm)
    updates(1)
    assert [result.applied for result in results] == [True, True, True, True, False, True]
    assert (step.steps_done, step.updates_skipped) == (6, 1)


def test_a_skipped_step_counts_in_the_schedule_and_not_in_adams_bias():
    step = step_of(
        steps=3, warmup_steps=0, learning_rate=0.5, weight_decay=0.0, precision="mixed_float16"
    )
    step.state["loss_scale"].value.assign(2.0**40)
    assert not step.update(*batch_of(TINY, 2)).applied
    step.state["loss_scale"].value.assign(2.0**15)
    before = np.array(step.model.token_embedding.embeddings)
    step.update(*batch_of(TINY, 2))
    # Adam's first update moves each weight by the rate, which is that of step 2 of 3.
    moved = np.abs(np.array(step.model.token_embedding.embeddings) - before).max()
    assert moved == pytest.approx(0.5 * (0.1 + 0.9 * 0.25), rel=1e-2)
