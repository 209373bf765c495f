"""model/training.py: runs that are stopped, or break off, and go on as if nothing had been."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.checkpoints import Checkpoints
from model.interruption import TrainingInterrupted
from model.training import TrainingResult
from model.training_log import TrainingLog
from tests.small_training import (
    before_each_evaluated_batch,
    before_each_update,
    metrics,
    shown_by_tensorboard,
    train_small,
)


class BrokenError(Exception):
    """Stands for what ends a process without a warning."""


SIX: dict[str, Any] = {"dropout": 0.1, "xla": False, "steps": 6, "checkpoint_every_steps": 2}


@pytest.fixture(scope="module")
def six_steps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingResult]:
    """A run of six steps without interruption."""
    folder = tmp_path_factory.mktemp("six_steps")
    return folder, train_small(folder, **SIX)


def assert_same_run(
    found: tuple[Path, TrainingResult], expected: tuple[Path, TrainingResult]
) -> None:
    assert metrics(found[0]) == metrics(expected[0])
    best, other = (
        json.loads((run / "checkpoints/best.json").read_text()) for run, _ in (found, expected)
    )
    assert best == other
    numbers, weights = [], []
    for _, result in (found, expected):
        numbers.append((result.train_loss, result.eval_loss, result.tokens_seen))
        weights.append(result.model.get_weights())
    assert numbers[0] == numbers[1]
    for weight, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(weight, other)


def test_a_run_that_sigterm_stops_at_every_step_is_the_same_to_the_bit(six_steps, tmp_path):
    for step in range(1, 7):

        def terminate(number: int, step: int = step) -> None:
            assert number == step  # it went on from the step before
            signal.raise_signal(signal.SIGTERM)

        message = (
            f"training was stopped by a signal after step {step} of 6; "
            "it goes on from there when started again"
        )
        with (
            before_each_update(terminate),
            pytest.raises(TrainingInterrupted, match=f"^{message}$"),
        ):
            train_small(tmp_path, **SIX)
        assert [record["step"] for record in metrics(tmp_path)] == list(range(1, step + 1))
    assert_same_run((tmp_path, train_small(tmp_path, **SIX)), six_steps)


def test_an_evaluation_that_sigterm_breaks_off_is_the_first_to_be_done_when_the_run_goes_on(
    six_steps, tmp_path, capsys
):
    calls = 0

    def terminate(steps_done: int) -> None:
        nonlocal calls
        calls += 1
        assert steps_done == (4 if calls <= 4 else 6)
        if calls in (1, 2, 4):  # the first batch of two, once more, and the second
            signal.raise_signal(signal.SIGTERM)

    with before_each_evaluated_batch(terminate):
        for has_eval_loss in (False, False, True):
            with pytest.raises(TrainingInterrupted, match="after step 4 of 6"):
                train_small(tmp_path, **SIX)
            assert (tmp_path / "checkpoints" / "step-000004").is_dir()
            assert ("eval_loss" in metrics(tmp_path)[-1]) == has_eval_loss
            assert " 4/6 [" in capsys.readouterr().err.splitlines()[-1]
        assert_same_run((tmp_path, train_small(tmp_path, **SIX)), six_steps)
    assert calls == 6


@pytest.mark.parametrize("step", [4, 6])
@pytest.mark.parametrize(
    ("kind", "method"),
    [(TrainingLog, "_write_anew"), (Checkpoints, "save"), (Checkpoints, "_rotate")],
)
def test_a_run_that_breaks_off_after_such_an_evaluation_is_the_same_to_the_bit(
    six_steps, tmp_path, monkeypatch, kind, method, step
):
    def terminate(steps_done: int) -> None:
        if steps_done == step:
            signal.raise_signal(signal.SIGTERM)

    def break_off(checkpoints_or_log: Any, *arguments: Any) -> None:
        if evaluated:
            raise BrokenError
        original(checkpoints_or_log, *arguments)

    with (
        before_each_evaluated_batch(terminate),
        pytest.raises(TrainingInterrupted, match=f"after step {step} of 6"),
    ):
        train_small(tmp_path, **SIX)
    evaluated: list[int] = []
    original = getattr(kind, method)
    with monkeypatch.context() as broken, before_each_evaluated_batch(evaluated.append):
        broken.setattr(kind, method, break_off)
        with pytest.raises(BrokenError):
            train_small(tmp_path, **SIX)
    assert_same_run((tmp_path, train_small(tmp_path, **SIX)), six_steps)
    assert {step for step, _ in shown_by_tensorboard(tmp_path)["eval_loss"]} == {4, 6}


@pytest.mark.slow
@pytest.mark.long
def test_compiled_around_its_products_a_stopped_run_is_the_same_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr("model.gradients.compilation_of", lambda config: "around_products")
    settings = SIX | {"precision": "mixed_bfloat16"}
    whole = train_small(tmp_path / "whole", **settings)

    def terminate(number: int) -> None:
        if number == 3:
            signal.raise_signal(signal.SIGTERM)

    with before_each_update(terminate), pytest.raises(TrainingInterrupted):
        train_small(tmp_path / "stopped", **settings)
    stopped = train_small(tmp_path / "stopped", **settings)
    assert_same_run((tmp_path / "stopped", stopped), (tmp_path / "whole", whole))


def test_a_run_that_breaks_off_at_every_step_is_the_same_to_the_bit(six_steps, tmp_path):
    for step in range(1, 7):

        def break_off(number: int, step: int = step) -> None:
            if number == step:
                raise BrokenError

        with before_each_update(break_off), pytest.raises(BrokenError):
            train_small(tmp_path, **SIX)
        # A kill in the middle of a line leaves a part of it.
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 7, "lo')
    # The last time, training goes on from step 4, the last one that has a checkpoint.
    assert_same_run((tmp_path, train_small(tmp_path, **SIX)), six_steps)


def test_a_damaged_checkpoint_has_training_go_on_from_the_one_before(six_steps, tmp_path, capsys):
    folder, _ = six_steps
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (data,) = (tmp_path / "checkpoints" / "step-000006").glob("state.data*")
    os.truncate(data, data.stat().st_size // 2)
    again = train_small(tmp_path, **SIX)
    errors = capsys.readouterr().err
    assert f"step-000006: SHA256SUMS does not agree with {data.name}\n" in errors
    assert "training goes on from step 4\n" in errors
    assert_same_run((tmp_path, again), six_steps)
