"""model/training.py: whole runs, small ones; interruption and resumption; what they leave."""

import itertools
import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model import GPT2
from model.training import TrainingResult
from tests.small_training import TIMEOUT, metrics, results, small_split, start, train_small

DROPOUT = 0.2


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingResult]:
    """A run of ten steps without interruption."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train_small(folder, dropout=DROPOUT)


def test_a_run_writes_one_record_for_each_step(finished):
    folder, _ = finished
    records = metrics(folder)
    assert [record["step"] for record in records] == list(range(1, 11))
    assert [set(record) - {"eval_loss"} for record in records] == [
        {"step", "tokens", "loss", "gradient_norm", "learning_rate"}
    ] * 10
    assert ["eval_loss" in record for record in records] == [
        step in (4, 8, 10) for step in range(1, 11)
    ]
    # Two steps of warm-up from 0 to 0.01, then half a cosine of eight steps to 0.001.
    rates = [record["learning_rate"] for record in records]
    np.testing.assert_allclose(rates[:3] + rates[6:7], [0, 0.005, 0.01, 0.0055], rtol=1e-5)


def test_tokens_are_counted_without_what_fills_up_rows(finished):
    folder, result = finished
    split = small_split(seed=0, num_documents=10)
    full_rows, left_over = divmod(split.num_tokens, 12)
    assert left_over
    missing = 12 - left_over
    # Ten steps of four rows: two or three epochs begun, each with one row that is not full.
    epochs_done = 40 // (full_rows + 1)
    assert epochs_done >= 2
    tokens = [0.0] + [record["tokens"] for record in metrics(folder)]
    lacking = [48 - (after - before) for before, after in itertools.pairwise(tokens)]
    assert set(lacking) == {0, missing}
    assert lacking.count(missing) in (epochs_done, epochs_done + 1)
    assert result.tokens_seen == tokens[-1]


def test_the_result_is_the_mean_of_the_last_losses_and_the_last_measurement(finished):
    folder, result = finished
    records = metrics(folder)
    losses = [record["loss"] for record in records]
    assert result.train_loss == pytest.approx(sum(losses) / 10, rel=1e-9)
    assert result.eval_loss == records[-1]["eval_loss"]
    assert type(result.model) is GPT2


def test_training_learns(tmp_path):
    train_small(tmp_path, steps=60, learning_rate=0.02, xla=False, eval_every_steps=60)
    losses = [record["loss"] for record in metrics(tmp_path)]
    assert losses[0] > 3.9  # about ln 61
    assert losses[-1] < 3


@pytest.fixture(scope="module")
def without_xla(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingResult]:
    folder = tmp_path_factory.mktemp("without_xla")
    return folder, train_small(folder, dropout=DROPOUT, xla=False)


@pytest.mark.parametrize("xla", [True, False])
def test_the_same_seed_gives_the_same_losses_to_the_bit(finished, without_xla, tmp_path, xla):
    folder, result = finished if xla else without_xla
    again = train_small(tmp_path, dropout=DROPOUT, xla=xla)
    assert metrics(tmp_path) == metrics(folder)
    for weight, other in zip(again.model.get_weights(), result.model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)


def test_another_seed_gives_other_losses(without_xla, tmp_path):
    train_small(tmp_path, dropout=DROPOUT, xla=False, seed=2)
    for record, other in zip(metrics(tmp_path), metrics(without_xla[0]), strict=True):
        assert record["loss"] != other["loss"]


def test_a_run_that_was_killed_ends_with_the_losses_of_one_that_was_not(finished, tmp_path):
    run = {"folder": str(tmp_path), "dropout": DROPOUT}
    killed = start([run | {"kill_before_update": 9}])
    assert killed.wait(timeout=TIMEOUT) == -signal.SIGKILL
    # Checkpoints were written after steps 3 and 6; steps 7 and 8 are lost. Perhaps they got as far
    # as the file, the last one cut off.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 7, "loss": 99.0, "tokens": 1, "tokens_per_second": 1.0}\n{"step": 8, "lo'
        )

    (resumed,) = results(start([run]))

    folder, result = finished
    records = metrics(tmp_path)
    assert [record["step"] for record in records] == list(range(1, 11))
    assert records == metrics(folder)
    assert resumed == {
        "train_loss": result.train_loss,
        "eval_loss": result.eval_loss,
        "tokens_seen": result.tokens_seen,
    }


def test_a_finished_run_that_is_started_again_ends_as_it_ended(finished):
    folder, result = finished
    before = metrics(folder)
    again = train_small(folder, dropout=DROPOUT)
    assert metrics(folder) == before
    assert (again.train_loss, again.eval_loss, again.tokens_seen) == (
        result.train_loss,
        result.eval_loss,
        result.tokens_seen,
    )
    for weight, other in zip(again.model.get_weights(), result.model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)


def test_the_newest_checkpoints_are_kept_and_the_last_step_has_one(finished):
    names = sorted(path.name for path in (finished[0] / "checkpoints").glob("*.index"))
    assert names == ["ckpt-10.index", "ckpt-9.index"]


def test_tensorboard_reads_each_steps_numbers(finished):
    folder, _ = finished
    written: dict[str, dict[int, float]] = {}
    for path in (folder / "tensorboard").glob("events.out.tfevents.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                steps = written.setdefault(value.tag, {})
                assert event.step not in steps
                steps[event.step] = float(tf.make_ndarray(value.tensor))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    expected: dict[str, dict[int, Any]] = {}
    for record in map(json.loads, lines):
        step = record.pop("step")
        for name, number in record.items():
            expected.setdefault(name, {})[step] = pytest.approx(number, rel=1e-6)
    assert len(expected) == 6
    assert written == expected


def test_a_loss_that_is_not_finite_is_an_error_that_says_at_which_step(tmp_path):
    message = "loss is nan at step 2: try a learning_rate below 1e+30 or warmup_steps above 0"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        train_small(tmp_path, learning_rate=1e30, weight_decay=0.0, warmup_steps=0, xla=False)


def test_checkpoints_of_another_model_are_an_error(finished):
    with pytest.raises(AssertionError, match="block_1"):
        train_small(finished[0], num_layers=2)
