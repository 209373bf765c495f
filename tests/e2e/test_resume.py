"""Training that is killed in the middle goes on from its checkpoint, as if nothing had been."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.e2e.conftest import read_metrics, read_weights, start_run
from tests.small_training import SPEED

pytestmark = [pytest.mark.slow, pytest.mark.long]

STEPS, CHECKPOINT_EVERY = 60, 20  # as in pipeline/configs/tiny.yaml


class Resumed(NamedTuple):
    """What the interrupted run had written when it was killed, and what the next one made of it."""

    lines_before: list[str]
    lines_after: list[str]
    stderr: str
    summary: dict[str, Any]


def kill_after_checkpoint(process: subprocess.Popen, output: Path, step: int) -> None:
    """Sends SIGKILL as soon as the checkpoint of a step is complete."""
    deadline = time.monotonic() + 300
    while not list(output.glob(f"checkpoints/*/checkpoints/step-{step:06d}")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no checkpoint within five minutes"
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def resumed(tmp_path_factory) -> Resumed:
    folder = tmp_path_factory.mktemp("resume")
    output = folder / "output"
    killed = start_run(folder, f"output={output}")
    try:
        kill_after_checkpoint(killed, output, CHECKPOINT_EVERY)
    finally:
        killed.kill()
    lines_before = read_metrics(output)
    assert not list(output.glob(f"checkpoints/*/checkpoints/step-{STEPS:06d}"))
    assert not (output / "serving").exists()

    process = start_run(folder, f"output={output}")
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    summary = json.loads((output / "summary.json").read_text())
    return Resumed(lines_before, read_metrics(output), stderr, summary)


def parse(lines: list[str]) -> list[dict[str, float]]:
    """The records without what differs from run to run."""
    records = [json.loads(line) for line in lines]
    for record in records:
        for name in SPEED:
            del record[name]
    return records


def test_the_second_run_goes_on_from_the_checkpoint(resumed):
    assert len(resumed.lines_before) >= CHECKPOINT_EVERY
    # The lines of the first steps still have the first run's speed: they were not done again.
    assert resumed.lines_after[:CHECKPOINT_EVERY] == resumed.lines_before[:CHECKPOINT_EVERY]
    assert f" {CHECKPOINT_EVERY}/{STEPS} [" in resumed.stderr
    assert f" 0/{STEPS} [" not in resumed.stderr


def test_each_step_has_the_losses_of_a_run_that_was_not_interrupted(first_run, resumed):
    records = parse(resumed.lines_after)
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert records == parse(first_run.metrics)


def test_the_pushed_weights_are_those_of_a_run_that_was_not_interrupted(first_run, resumed):
    expected, found = (
        read_weights(summary["pushed_path"]) for summary in (first_run.summary, resumed.summary)
    )
    assert len(expected) == 28
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        assert np.array_equal(found[name], weight), name


def test_the_components_before_the_training_come_from_the_cache(resumed):
    assert resumed.summary["cached"] == [
        "CorpusExampleGen",
        "ImportSchemaGen",
        "StatisticsGen",
        "ExampleValidator",
        "Transform",
    ]
    assert resumed.summary["blessed"] is True
