"""model/optimizer.py against float64 NumPy."""

import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from model.optimizer import AdamW, make_optimizer, make_schedule
from model.strategy import make_strategy
from model.training_config import StrategyConfig

BETAS: dict[str, Any] = {"beta_1": 0.8, "beta_2": 0.95}
SHAPES = ((3, 4), (4,), (2, 3, 2))
DECAYS = (0.5, 0.0, 0.5)  # on matrices alone


def numpy_adamw(
    weight: np.ndarray, gradients: list[np.ndarray], rates: list[float], decay: float
) -> list[np.ndarray]:
    """The weight after each update: Loshchilov & Hutter 2019, algorithm 2, with `BETAS`."""
    weights = [weight.astype(np.float64)]
    beta_1, beta_2, epsilon = BETAS["beta_1"], BETAS["beta_2"], 1e-8
    mean, square = np.zeros_like(weight), np.zeros_like(weight)
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        mean = beta_1 * mean + (1 - beta_1) * gradient
        square = beta_2 * square + (1 - beta_2) * gradient**2
        unbiased_mean = mean / (1 - beta_1**step)
        unbiased_square = square / (1 - beta_2**step)
        adam = unbiased_mean / (np.sqrt(unbiased_square) + epsilon)
        weights.append(weights[-1] - rate * (adam + decay * weights[-1]))
    return weights[1:]


def numpy_averages(weights: list[np.ndarray], decay: float) -> list[np.ndarray]:
    """The moving average after each update, the first one's being all new."""
    average, averages = np.zeros_like(weights[0]), []
    for earlier_updates, weight in enumerate(weights):
        kept = min(decay, earlier_updates / (earlier_updates + 10))
        average = kept * average + (1 - kept) * weight
        averages.append(average)
    return averages


class Case:
    """Variables of `SHAPES` on one device, and updates by random gradients."""

    def __init__(self, updates: int, **settings: Any) -> None:
        generator = np.random.default_rng(0)
        self.starts = [generator.standard_normal(shape) for shape in SHAPES]
        self.gradients = [
            [generator.standard_normal(shape) for shape in SHAPES] for _ in range(updates)
        ]
        self.strategy = make_strategy(StrategyConfig())
        with self.strategy.scope():
            self.variables = [keras.Variable(start, dtype="float32") for start in self.starts]
            self.optimizer = make_optimizer(
                self.variables, **({"weight_decay": 0.5} | BETAS | settings)
            )

    def update(self, number: int, rate: float, shrink: float = 1.0) -> None:
        gradients = [tf.constant(g, tf.float32) for g in self.gradients[number]]
        self._run(gradients, tf.constant(rate, tf.float32), tf.constant(shrink, tf.float32))

    @tf.function
    def _run(self, gradients: list[tf.Tensor], rate: tf.Tensor, shrink: tf.Tensor) -> None:
        self.strategy.run(self.optimizer.update, args=(gradients, self.variables, rate, shrink))

    def expected(self, rates: list[float], shrink: float = 1.0) -> list[list[np.ndarray]]:
        """For each variable its values after each update."""
        return [
            numpy_adamw(start, [shrink * step[index] for step in self.gradients], rates, decay)
            for index, (start, decay) in enumerate(zip(self.starts, DECAYS, strict=True))
        ]


def test_updates_equal_numpys_adamw_with_decay_on_matrices_alone():
    rates = [0.01, 0.02, 0.04, 0.03, 0.02, 0.01]
    case = Case(updates=6)
    for number, rate in enumerate(rates):
        case.update(number, rate)
    for variable, expected in zip(case.variables, case.expected(rates), strict=True):
        np.testing.assert_allclose(variable, expected[-1], rtol=1e-5, atol=1e-6)
    assert int(case.optimizer.iterations) == 6
    assert case.optimizer.averages == []


def test_gradients_are_shrunk_before_they_enter_the_moments():
    case = Case(updates=3)
    for number in range(3):
        case.update(number, 0.01, shrink=0.25)
    for moments, power in ((case.optimizer._momentums, 1), (case.optimizer._velocities, 2)):
        beta = BETAS[f"beta_{power}"]
        for index, moment in enumerate(moments):
            expected = sum(
                (1 - beta) * beta ** (2 - number) * (0.25 * case.gradients[number][index]) ** power
                for number in range(3)
            )
            np.testing.assert_allclose(moment, expected, rtol=1e-5, atol=1e-7)


def test_a_gradient_as_small_as_epsilon_moves_its_weight_by_less_than_the_rate():
    variable = keras.Variable(np.zeros((1, 2)), dtype="float32")
    optimizer = make_optimizer([variable], weight_decay=0.0, **BETAS)
    optimizer.update([tf.constant([[1e-8, 1e-3]])], [variable], tf.constant(0.5), tf.constant(1.0))
    # After one update both moments, made unbiased, are the gradient itself and its square.
    expected = [[-0.5 * 1e-8 / (1e-8 + 1e-8), -0.5]]
    np.testing.assert_allclose(variable, expected, rtol=1e-4)


def test_the_averages_follow_the_weights_the_early_ones_faster():
    rates = [0.1] * 30
    case = Case(updates=30, average_decay=0.6)
    for average, start in zip(case.optimizer.averages, case.starts, strict=True):
        np.testing.assert_allclose(average, start, rtol=1e-6)
    expected = [numpy_averages(weights, 0.6) for weights in case.expected(rates)]
    for number, rate in enumerate(rates):
        case.update(number, rate)
        if number in (0, 1, 5, 29):  # n / (n + 10) is below 0.6 until n = 15
            for average, values in zip(case.optimizer.averages, expected, strict=True):
                np.testing.assert_allclose(average, values[number], rtol=1e-4, atol=1e-5)
    for average, variable in zip(case.optimizer.averages, case.variables, strict=True):
        assert np.abs(np.array(average) - np.array(variable)).max() > 0.01


def test_averages_leave_the_weights_as_they_would_be_without():
    plain, averaged = Case(updates=3), Case(updates=3, average_decay=0.9)
    for case in (plain, averaged):
        for number in range(3):
            case.update(number, 0.1)
    for one, other in zip(plain.variables, averaged.variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_keras_own_update_is_there_for_fit_and_equals_numpys_too():
    case = Case(updates=4)
    optimizer = AdamW(learning_rate=0.02, weight_decay=0.5, epsilon=1e-8, **BETAS)
    optimizer.exclude_from_weight_decay(var_list=[case.variables[1]])
    for gradients in case.gradients:
        optimizer.apply([tf.constant(g, tf.float32) for g in gradients], case.variables)
    for variable, expected in zip(case.variables, case.expected([0.02] * 4), strict=True):
        np.testing.assert_allclose(variable, expected[-1], rtol=1e-5, atol=1e-6)


def test_without_decay_a_matrix_without_gradient_stays():
    variable = keras.Variable(np.ones((2, 2)), dtype="float32")
    optimizer = make_optimizer([variable], weight_decay=0.0, **BETAS)
    optimizer.update([tf.zeros((2, 2))], [variable], tf.constant(0.5), tf.constant(1.0))
    assert (np.array(variable) == 1).all()


# --- the schedule ---


def learning_rates(numbers: list[int], **changes: Any) -> list[float]:
    """The learning rates of steps by their numbers; the peak is 0.01."""
    settings: dict[str, Any] = {"final_learning_rate_share": 0.1, "warmup_steps": 0} | changes
    schedule = make_schedule(learning_rate=0.01, **settings)
    return [float(schedule(step)) for step in numbers]


def test_the_rate_rises_linearly_then_follows_half_a_cosine_to_its_floor():
    rates = learning_rates([1, 5, 10, 60, 110, 1000], steps=110, warmup_steps=10)
    expected = [0.001, 0.005, 0.01, 0.0055, 0.001, 0.001]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_without_warm_up_the_rate_follows_the_cosine_at_once():
    rates = learning_rates([1, 25, 50, 75, 100], steps=100)
    cosines = [math.cos(math.pi * step / 100) for step in (1, 25, 50, 75, 100)]
    expected = [0.01 * (0.1 + 0.9 * (1 + cosine) / 2) for cosine in cosines]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_a_final_share_of_one_keeps_the_rate_at_its_peak():
    changes = {"steps": 20, "warmup_steps": 10, "final_learning_rate_share": 1.0}
    np.testing.assert_allclose(learning_rates([10, 13, 20], **changes), [0.01] * 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("steps", "warmup_steps", "expected"), [(1, 0, [0.001]), (2, 1, [0.01, 0.001])]
)
def test_the_shortest_schedules_end_at_the_floor(steps, warmup_steps, expected):
    rates = learning_rates(list(range(1, steps + 1)), steps=steps, warmup_steps=warmup_steps)
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
