"""Training that SIGKILL or SIGTERM ended goes on as if nothing had been, under each strategy.

The processes are real ones and so are the signals, which come from outside at whatever step the run
happens to be in.
"""

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.small_training import (
    TIMEOUT,
    last_step,
    metrics,
    results,
    start,
    train_small,
    workers,
)

pytestmark = [pytest.mark.slow, pytest.mark.long]

STEPS = 40
RUN: dict[str, Any] = {"steps": STEPS, "dropout": 0.1, "checkpoint_every_steps": 3}
PAUSE = {"pause": 0.05}  # seconds a step: long enough to hit one in the middle of the run


def send(
    number: signal.Signals,
    to: list[subprocess.Popen[str]],
    processes: list[subprocess.Popen[str]],
    folder: Path,
    after: int,
) -> int:
    """Sends a signal once the run has done `after` steps more; returns the last step that it did.

    All processes must end by it, and before the run is through.
    """
    goal = last_step(folder) + after
    deadline = time.monotonic() + TIMEOUT
    while last_step(folder) < goal:
        assert time.monotonic() < deadline, f"step {goal} was not reached"
        for process in processes:
            assert process.poll() is None, process.communicate()[1][-5000:]
        time.sleep(0.005)
    for process in to:
        process.send_signal(number)
    for process in processes:
        _, errors = process.communicate(timeout=TIMEOUT)
        if number == signal.SIGKILL and process in to:
            assert process.returncode == -signal.SIGKILL, errors[-5000:]
        else:
            assert process.returncode == 1, errors[-5000:]
        if number == signal.SIGTERM:
            last_line = errors.rstrip().splitlines()[-1]
            assert "TrainingInterrupted: training was stopped by a signal after step" in last_line
    assert goal <= last_step(folder) < STEPS
    return last_step(folder)


def assert_stopped_at(folder: Path, step: int) -> None:
    """Asserts that SIGTERM left a checkpoint of the last step that was done."""
    assert (folder / "checkpoints" / f"step-{step:06d}").is_dir()


def test_on_one_device_to_the_bit_under_xla(tmp_path):
    folder = tmp_path / "interrupted"
    run = RUN | {"folder": str(folder), "xla": True}

    killed = start([run | PAUSE])
    send(signal.SIGKILL, [killed], [killed], folder, after=5)
    terminated = start([run | PAUSE])
    assert_stopped_at(folder, send(signal.SIGTERM, [terminated], [terminated], folder, after=7))
    resumed = train_small(**run)

    whole = train_small(**(run | {"folder": tmp_path / "whole"}))
    assert metrics(folder) == metrics(tmp_path / "whole")
    assert (resumed.train_loss, resumed.eval_loss, resumed.tokens_seen) == (
        whole.train_loss,
        whole.eval_loss,
        whole.tokens_seen,
    )


def test_on_two_replicas_to_the_bit(tmp_path):
    folder = tmp_path / "interrupted"
    strategy = {"name": "mirrored", "num_devices": 2, "device": "cpu"}
    run = RUN | {"folder": str(folder), "xla": False, "strategy": strategy}

    killed = start([run | PAUSE])
    send(signal.SIGKILL, [killed], [killed], folder, after=5)
    terminated = start([run | PAUSE])
    assert_stopped_at(folder, send(signal.SIGTERM, [terminated], [terminated], folder, after=7))
    resumed, whole = results(start([run, run | {"folder": str(tmp_path / "whole")}]))

    assert metrics(folder) == metrics(tmp_path / "whole")
    assert resumed == whole


def test_on_two_workers_of_which_one_has_the_signal_to_the_bit(tmp_path):
    folder = tmp_path / "interrupted"
    run = RUN | {"folder": str(folder), "xla": False, "strategy": {"name": "multi_worker"}}

    with workers([run | PAUSE], count=2) as processes:
        # The other one must not wait for it for ever.
        send(signal.SIGKILL, processes[1:], processes, folder, after=5)
    with workers([run | PAUSE], count=2) as processes:
        # Not the chief: it must hear of it.
        assert_stopped_at(folder, send(signal.SIGTERM, processes[1:], processes, folder, after=7))
    with workers([run | {"worker_terminated_in_evaluation": 1}], count=2) as processes:
        for process in processes:
            _, errors = process.communicate(timeout=TIMEOUT)
            assert "TrainingInterrupted: training was stopped by a signal after" in errors
    assert last_step(folder) % 4 == 0
    assert "eval_loss" not in metrics(folder)[-1]
    with workers([run, run | {"folder": str(tmp_path / "whole")}], count=2) as processes:
        outcomes = [results(process) for process in processes]

    assert metrics(folder) == metrics(tmp_path / "whole")
    for resumed, whole in outcomes:
        assert resumed == whole
