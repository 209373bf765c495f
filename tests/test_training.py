"""model/training.py: whole runs, small ones, and what they leave."""

import dataclasses
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model import GPT2, training
from model.train_step import StepResult, TrainStep
from model.training import TrainingResult
from tests.small_training import metrics, small_split, train_small

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
        {"step", "tokens", "loss", "gradient_norm", "learning_rate", "updates_skipped"}
    ] * 10  # and SPEED
    assert ["eval_loss" in record for record in records] == [
        step in (4, 8, 10) for step in range(1, 11)
    ]
    # Two steps of warm-up to 0.01, then half a cosine of eight steps to 0.001.
    rates = [records[step - 1]["learning_rate"] for step in (1, 2, 6, 10)]
    np.testing.assert_allclose(rates, [0.005, 0.01, 0.0055, 0.001], rtol=1e-5)


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


def test_the_newest_checkpoints_and_the_best_are_kept_and_the_last_step_has_one(finished):
    # They are written after steps 3, 6, 9 and 10, and where of 4, 8 and 10 one is the best so far.
    folder = finished[0] / "checkpoints"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["best.json", "step-000009", "step-000010"]
    assert json.loads((folder / "best.json").read_text()) == {
        "step": 10,
        "eval_loss": metrics(finished[0])[-1]["eval_loss"],
    }


def test_the_step_with_the_lowest_eval_loss_has_a_checkpoint(tmp_path):
    # There are few documents to train on: soon it knows them by heart, and others no better.
    settings: dict[str, Any] = {
        "steps": 30,
        "xla": False,
        "eval_every_steps": 5,
        "checkpoint_every_steps": 1000,
        "keep_checkpoints": 1,
        "learning_rate": 0.03,
        "weight_decay": 0.0,
    }
    last = train_small(tmp_path, **settings)
    measured = {
        record["step"]: record["eval_loss"] for record in metrics(tmp_path) if "eval_loss" in record
    }
    assert list(measured) == [5, 10, 15, 20, 25, 30]
    best = min(measured, key=measured.__getitem__)
    assert best < 30
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["best.json", f"step-{best:06d}", "step-000030"]

    # The same run once more, which has nothing left to do but to end with the best.
    result = train_small(tmp_path, **settings, load_best_at_end=True)
    assert (last.step, last.eval_loss) == (30, measured[30])
    assert (result.step, result.eval_loss) == (best, measured[best])
    assert result.train_loss == last.train_loss
    reader = tf.train.load_checkpoint(str(tmp_path / "checkpoints" / f"step-{best:06d}" / "state"))
    saved = [reader.get_tensor(name) for name in reader.get_variable_to_shape_map()]
    for weight, other in zip(result.model.get_weights(), last.model.get_weights(), strict=True):
        assert any(np.array_equal(weight, each) for each in saved)
        assert not np.array_equal(weight, other)


def test_tensorboard_reads_each_steps_numbers(finished):
    folder, _ = finished
    written: dict[str, dict[int, float]] = {}
    for path in (folder / "tensorboard").glob("events.out.tfevents.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                steps = written.setdefault(value.tag, {})
                assert event.step not in steps
                steps[event.step] = value.simple_value
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    expected: dict[str, dict[int, Any]] = {}
    for record in map(json.loads, lines):
        step = record.pop("step")
        for name, number in record.items():
            expected.setdefault(name, {})[step] = pytest.approx(number, rel=1e-6)
    assert set(expected) == {
        "tokens",
        "loss",
        "gradient_norm",
        "learning_rate",
        "updates_skipped",
        "tokens_per_second",
        "model_flop_utilisation",
        "peak_memory_bytes",
        "eval_loss",
    }
    assert written == expected


def test_speed_and_memory_are_those_of_this_process(finished):
    lines = (finished[0] / "metrics.jsonl").read_text().splitlines()
    first, *others = [json.loads(line) for line in lines]
    assert (first["tokens_per_second"], first["model_flop_utilisation"]) == (0, 0)
    # Of the model in SMALL with one layer: 12 of width, 20 inside, 61 tokens, 12 of context.
    flops_per_token = 6 * (4 * 12**2 + 2 * 12 * 20 + 61 * 12) + 12 * 12 * 12
    rate = training._matmul_rate("float32")
    for record in others:
        assert record["tokens_per_second"] > 0
        utilisation = record["tokens_per_second"] * flops_per_token / rate
        assert record["model_flop_utilisation"] == pytest.approx(utilisation)
    memory = [record["peak_memory_bytes"] for record in (first, *others)]
    assert memory == sorted(memory)
    assert memory[0] > 2**27  # TensorFlow alone takes more


def test_the_progress_line_says_what_is_logged(tmp_path, capsys):
    train_small(tmp_path, steps=3, eval_every_steps=1, xla=False)
    written = capsys.readouterr().err
    assert "\r" not in written  # no terminal
    assert "training on CPU:0\n" in written
    line = written.splitlines()[-1]
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert "training: 100%" in line
    assert " 3/3 [" in line
    for shown in (
        f"loss={last['loss']:.3f}",
        f"eval_loss={last['eval_loss']:.3f}",
        f"gradient_norm={last['gradient_norm']:.2f}",
        f"learning_rate={last['learning_rate']:.1e}",
        f"tokens={last['tokens']:.3g}",
        f"tokens_per_second={last['tokens_per_second']:.0f}",
        f"model_flop_utilisation={last['model_flop_utilisation']:.0%}",
        f"peak_memory={last['peak_memory_bytes'] / 2**30:.2f}GiB",
    ):
        assert shown in line


def test_a_loss_that_is_not_finite_is_an_error_that_says_at_which_step(tmp_path):
    message = "loss is nan at step 2: try a learning_rate below 1e+30 or warmup_steps above 0"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        train_small(tmp_path, learning_rate=1e30, weight_decay=0.0, warmup_steps=0, xla=False)


def test_a_gradient_that_is_not_finite_is_an_error_that_says_at_which_step(tmp_path, monkeypatch):
    update = TrainStep.update

    def spoilt(self: TrainStep, ids: np.ndarray, weights: np.ndarray) -> StepResult:
        result = update(self, ids, weights)
        if self.steps_done < 3:
            return result
        return dataclasses.replace(result, gradient_norm=math.inf, applied=False)

    monkeypatch.setattr(TrainStep, "update", spoilt)
    message = "gradient_norm is inf at step 3: try a learning_rate below 0.01 or warmup_steps above"
    with pytest.raises(ValueError, match=f"^{message} 2$"):
        train_small(tmp_path, xla=False)


def test_checkpoints_of_another_model_are_an_error(finished):
    message = f"^{finished[0]}/checkpoints/step-000010 must be a checkpoint of this model and con"
    with pytest.raises(ValueError, match=rf"{message}(.|\n)*block_1"):
        train_small(finished[0], num_layers=2)
