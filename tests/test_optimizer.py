"""model/optimizer.py against float64 NumPy."""

import math
from typing import Any

import keras
import numpy as np
import pytest

from model.optimizer import AdamW, make_optimizer

SETTINGS: dict[str, Any] = {
    "steps": 10,
    "learning_rate": 0.01,
    "final_learning_rate_share": 0.1,
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "beta_1": 0.8,
    "beta_2": 0.95,
}


def optimizer_of(variables: list[keras.Variable], **changes: Any) -> AdamW:
    return make_optimizer(variables, **(SETTINGS | changes))


def learning_rates(done: list[int], **changes: Any) -> list[float]:
    """The learning rate of the updates that follow so many others."""
    variable = keras.Variable(np.zeros(1), dtype="float32")
    optimizer = optimizer_of([variable], **changes)
    rates = []
    for updates in done:
        optimizer.iterations.assign(updates)
        rates.append(float(optimizer.learning_rate))
    return rates


def numpy_adamw(
    weight: np.ndarray, gradients: list[np.ndarray], rates: list[float], decay: float
) -> np.ndarray:
    """Loshchilov & Hutter 2019, algorithm 2, with the settings above."""
    weight = weight.astype(np.float64)
    beta_1, beta_2, epsilon = SETTINGS["beta_1"], SETTINGS["beta_2"], 1e-7
    mean, square = np.zeros_like(weight), np.zeros_like(weight)
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        mean = beta_1 * mean + (1 - beta_1) * gradient
        square = beta_2 * square + (1 - beta_2) * gradient**2
        unbiased_mean = mean / (1 - beta_1**step)
        unbiased_square = square / (1 - beta_2**step)
        adam = unbiased_mean / (np.sqrt(unbiased_square) + epsilon)
        weight = weight - rate * (adam + decay * weight)
    return weight


def test_updates_equal_numpys_adamw_with_decay_on_matrices_alone():
    generator = np.random.default_rng(0)
    starts = [generator.standard_normal(shape) for shape in ((3, 4), (4,), (2, 3, 2))]
    steps = [[generator.standard_normal(start.shape) for start in starts] for _ in range(6)]
    variables = [keras.Variable(start, dtype="float32") for start in starts]
    optimizer = optimizer_of(variables, final_learning_rate_share=1.0, weight_decay=0.5)
    for gradients in steps:
        optimizer.apply([keras.ops.cast(g, "float32") for g in gradients], variables)
    for index, decay in enumerate([0.5, 0.0, 0.5]):
        gradients = [step[index] for step in steps]
        expected = numpy_adamw(starts[index], gradients, [0.01] * 6, decay)
        np.testing.assert_allclose(variables[index], expected, rtol=1e-5, atol=1e-6)
    assert int(optimizer.iterations) == 6


def test_updates_follow_the_schedule_from_a_first_one_of_nothing():
    start = np.array([[1.0, -2.0]])
    gradients = [np.array([[0.5, 3.0]])] * 4
    variable = keras.Variable(start, dtype="float32")
    optimizer = optimizer_of([variable], warmup_steps=2, weight_decay=0.5)
    weights = [start]
    for gradient in gradients:
        optimizer.apply([keras.ops.cast(gradient, "float32")], [variable])
        weights.append(np.array(variable))
    # Half the peak after one of two warm-up steps, then the peak, then one of eight steps down.
    descent = 0.1 + 0.9 * (1 + math.cos(math.pi / 8)) / 2
    rates = [0.0, 0.005, 0.01, 0.01 * descent]
    expected = numpy_adamw(start, gradients, rates, 0.5)
    assert (weights[1] == start).all()
    np.testing.assert_allclose(weights[4], expected, rtol=1e-5)


def test_the_rate_rises_linearly_then_follows_half_a_cosine_to_its_floor():
    rates = learning_rates([0, 5, 10, 60, 110, 1000], steps=110, warmup_steps=10)
    expected = [0.0, 0.005, 0.01, 0.0055, 0.001, 0.001]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-9)


def test_without_warm_up_the_rate_begins_at_its_peak():
    rates = learning_rates([0, 25, 50, 75, 100], steps=100)
    quarter = math.sqrt(0.5)  # cos(pi / 4)
    shares = [1, 0.1 + 0.9 * (1 + quarter) / 2, 0.55, 0.1 + 0.9 * (1 - quarter) / 2, 0.1]
    np.testing.assert_allclose(rates, [0.01 * share for share in shares], rtol=1e-5)


def test_a_final_share_of_one_keeps_the_rate_at_its_peak():
    changes = {"steps": 20, "warmup_steps": 10, "final_learning_rate_share": 1.0}
    np.testing.assert_allclose(learning_rates([10, 13, 20], **changes), [0.01] * 3, rtol=1e-6)


@pytest.mark.parametrize("warmup_steps", [0, 1])
def test_a_single_step_has_a_schedule_too(warmup_steps):
    rates = learning_rates([0, 1], steps=1 + warmup_steps, warmup_steps=warmup_steps)
    expected = [0.0, 0.01] if warmup_steps else [0.01, 0.001]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_without_decay_a_matrix_without_gradient_stays():
    variable = keras.Variable(np.ones((2, 2)), dtype="float32")
    optimizer_of([variable]).apply([keras.ops.zeros((2, 2))], [variable])
    assert (np.array(variable) == 1).all()
