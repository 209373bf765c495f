"""model/train_step.py under each strategy: the same updates, however the batch is cut."""

import math
from typing import Any

import numpy as np
import pytest

from tests.small_step_runs import (
    OVERFLOWS_AT,
    RUNS,
    SPIKES_AT,
    STEPS,
    WHOLE,
    outcomes,
    run,
    start,
    start_workers,
)
from tests.small_steps import TINY


@pytest.fixture(scope="module")
def mirrored() -> dict[str, Any]:
    (outcome,) = outcomes([start({"name": "mirrored", "num_devices": 2, "device": "cpu"})])
    return outcome


@pytest.fixture(scope="module")
def two_workers() -> list[dict[str, Any]]:
    return outcomes(start_workers(2))


@pytest.fixture(scope="module")
def one_device() -> dict[str, Any]:
    """The two runs that all others are compared with."""
    return {"whole": run({}, **WHOLE), "guarded": run({}, **RUNS["guarded"])}


def assert_alike(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    for name in ("losses", "norms"):
        np.testing.assert_allclose(found[name], expected[name], rtol=tolerance, err_msg=name)
    assert found["applied"] == expected["applied"]
    for kind in ("moments", "weights"):
        assert found[kind].keys() == expected[kind].keys()
        for name, values in expected[kind].items():
            others, values = np.array(found[kind][name]), np.array(values)
            if name.endswith("query_key_value/bias"):
                # No loss depends on the keys' bias: its gradient is zero but for rounding, and
                # Adam makes steps of that.
                keys = slice(TINY.embedding_dim, 2 * TINY.embedding_dim)
                others[keys] = values[keys] = 0
            largest = np.abs(values).max()
            np.testing.assert_allclose(
                others, values, rtol=0, atol=tolerance * largest, err_msg=f"{kind} of {name}"
            )


@pytest.mark.parametrize("name", ["cut", "cut_by_xla"])
def test_two_replicas_make_one_devices_updates_of_the_whole_batch(one_device, mirrored, name):
    assert all(mirrored[name]["applied"])
    assert_alike(mirrored[name], one_device["whole"], 1e-5)


@pytest.mark.parametrize("name", ["cut", "cut_by_xla"])
def test_two_workers_make_one_devices_updates_of_the_whole_batch(one_device, two_workers, name):
    assert_alike(two_workers[0][name], one_device["whole"], 1e-5)


def test_both_workers_come_to_the_same_weights_bit_for_bit(two_workers):
    for name in ("cut", "cut_by_xla"):
        assert two_workers[0][name] == two_workers[1][name]
    # NaN, an overflow's norm, is not equal to itself.
    np.testing.assert_equal(two_workers[0]["guarded"], two_workers[1]["guarded"])


@pytest.mark.parametrize("strategy", ["mirrored", "two_workers"])
def test_an_overflow_and_a_spike_are_skipped_on_all_replicas(one_device, strategy, request):
    found = request.getfixturevalue(strategy)
    found = (found[0] if isinstance(found, list) else found)["guarded"]
    skipped = {number for number in range(1, STEPS + 1) if not found["applied"][number - 1]}
    assert skipped == {OVERFLOWS_AT, SPIKES_AT}
    assert found["updates_skipped"] == 2
    expected = one_device["guarded"]
    assert not math.isfinite(found["norms"][OVERFLOWS_AT - 1])
    assert_alike(found, expected, 0.02)  # float16, summed in another order
