"""model/training_log.py: metrics.jsonl over interruptions."""

import json
from pathlib import Path

import pytest
import tensorflow as tf

from model.training_log import TrainingLog


def write_lines(folder: Path, *lines: str) -> None:
    (folder / "metrics.jsonl").write_text("".join(lines))


def lines_of(folder: Path) -> list[str]:
    return (folder / "metrics.jsonl").read_text().splitlines()


def record(step: int) -> dict[str, float]:
    return {"step": step, "tokens": 10 * step, "loss": 5.0 - step}


LINES = [json.dumps(record(step)) + "\n" for step in range(1, 6)]


def test_records_are_in_the_files_after_a_flush(tmp_path):
    log = TrainingLog(tmp_path / "new", start=0, enabled=True)
    log.add(record(1))
    log.add(record(2))
    log.flush()
    assert lines_of(tmp_path / "new") == [
        '{"step": 1, "tokens": 10, "loss": 4.0}',
        '{"step": 2, "tokens": 20, "loss": 3.0}',
    ]
    (events,) = (tmp_path / "new" / "tensorboard").iterdir()
    written = {
        (value.tag, event.step, float(tf.make_ndarray(value.tensor)))
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    }
    assert written == {("tokens", 1, 10), ("loss", 1, 4), ("tokens", 2, 20), ("loss", 2, 3)}
    log.close()


def test_lines_of_steps_that_will_be_done_again_are_dropped(tmp_path):
    write_lines(tmp_path, *LINES)
    log = TrainingLog(tmp_path, start=3, enabled=True)
    assert [r["step"] for r in log.records] == [1, 2, 3]
    assert log.tokens == 30
    log.add(record(4))
    log.close()
    assert [json.loads(line)["step"] for line in lines_of(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("length", [0, 1, 8, 9, 20, len(LINES[3]) - 2, len(LINES[3]) - 1])
def test_a_last_line_that_was_cut_off_anywhere_is_dropped(tmp_path, length):
    write_lines(tmp_path, *LINES[:3], LINES[3][:length])
    log = TrainingLog(tmp_path, start=3, enabled=True)
    log.add(record(4))
    log.close()
    assert lines_of(tmp_path) == [line.strip() for line in LINES[:4]]


def test_the_line_after_one_without_its_line_break_stands_on_its_own(tmp_path):
    write_lines(tmp_path, *LINES[:2], LINES[2].rstrip())
    log = TrainingLog(tmp_path, start=3, enabled=True)
    log.add(record(4))
    log.close()
    assert lines_of(tmp_path) == [line.strip() for line in LINES[:4]]


def test_a_run_without_a_checkpoint_starts_its_file_anew(tmp_path):
    write_lines(tmp_path, *LINES)
    log = TrainingLog(tmp_path, start=0, enabled=True)
    assert (log.records, log.tokens) == ([], 0)
    log.close()
    assert lines_of(tmp_path) == []


def test_a_worker_that_is_not_the_chief_reads_but_does_not_write(tmp_path):
    write_lines(tmp_path, *LINES)
    before = sorted(tmp_path.rglob("*"))
    log = TrainingLog(tmp_path, start=3, enabled=False)
    assert log.tokens == 30
    log.add(record(4))
    log.flush()
    log.close()
    assert log.mean_loss(last=2) == 1.5
    assert lines_of(tmp_path) == [line.strip() for line in LINES]
    assert sorted(tmp_path.rglob("*")) == before


def test_the_mean_loss_is_that_of_the_last_records(tmp_path):
    write_lines(tmp_path, *LINES)
    log = TrainingLog(tmp_path, start=5, enabled=False)
    assert log.mean_loss(last=2) == 0.5  # of 1 and 0
    assert log.mean_loss(last=50) == 2.0  # of 4, 3, 2, 1 and 0
