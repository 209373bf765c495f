"""model/update_guards.py against plain Python."""

import math

import numpy as np
import pytest
import tensorflow as tf

from model.update_guards import LossScale, SpikeGuard

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
