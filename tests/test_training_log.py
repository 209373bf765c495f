"""model/training_log.py: metrics.jsonl and TensorBoard's files over interruptions."""

import json
import math
import re
from pathlib import Path

import pytest
from tensorboard.summary.writer import event_file_writer

from model.training_log import TrainingLog
from tests.small_training import shown_by_tensorboard


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
    assert shown_by_tensorboard(tmp_path / "new") == {
        "tokens": [(1, 10), (2, 20)],
        "loss": [(1, 4), (2, 3)],
    }
    log.close()


def test_each_line_is_in_the_file_as_soon_as_it_is_added(tmp_path):
    log = TrainingLog(tmp_path, start=0, enabled=True)
    for step in (1, 2, 3):
        log.add(record(step))
        assert len(lines_of(tmp_path)) == step
    log.close()


def test_lines_of_steps_that_will_be_done_again_are_dropped(tmp_path):
    write_lines(tmp_path, *LINES)
    log = TrainingLog(tmp_path, start=3, enabled=True)
    assert log.last == record(3)
    assert log.tokens == 30
    log.add(record(4))
    assert log.tokens == 40
    log.close()
    assert [json.loads(line)["step"] for line in lines_of(tmp_path)] == [1, 2, 3, 4]


def test_tensorboard_shows_steps_that_were_done_again_once(tmp_path, monkeypatch):
    # Files are read in the order of their names: second, process, and the file's number in it.
    # Within one second and one process that is only right below ten.
    counter = event_file_writer.AtomicCounter(0)
    monkeypatch.setattr(event_file_writer, "_global_uid", counter)
    # Twice interrupted: after step 5, to go on from 3; after step 4, to go on from 2.
    for start, end, loss in ((0, 5, 1.0), (3, 4, 2.0), (2, 6, 3.0)):
        log = TrainingLog(tmp_path, start, enabled=True)
        for step in range(start + 1, end + 1):
            log.add({"step": step, "tokens": 10 * step, "loss": loss})
        log.close()
    assert shown_by_tensorboard(tmp_path)["loss"] == [
        (1, 1.0),
        (2, 1.0),
        (3, 3.0),
        (4, 3.0),
        (5, 3.0),
        (6, 3.0),
    ]


def test_eval_losses_are_those_that_were_measured_and_are_finite(tmp_path):
    losses = [math.nan, 3.0, math.inf, -math.inf, 4.0]
    log = TrainingLog(tmp_path, start=0, enabled=True)
    for step, eval_loss in enumerate(losses, start=1):
        log.add(record(step) | {"eval_loss": eval_loss})
    log.add(record(6))
    log.close()
    for enabled in (False, True):
        # A new object each time: a restart must not forget them.
        again = TrainingLog(tmp_path, start=6, enabled=enabled)
        assert log.eval_losses == again.eval_losses == {2: 3.0, 5: 4.0}
        again.close()


def test_a_record_of_the_last_step_again_takes_the_place_of_that(tmp_path, monkeypatch):
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    write_lines(tmp_path, *LINES[:2], '{"step": 3, "tokens": 30, "loss": null}\n')
    log = TrainingLog(tmp_path, start=3, enabled=True)
    assert math.isnan(log.last["loss"])
    log.add(record(3) | {"eval_loss": 1.5})
    assert (log.tokens, log.mean_loss) == (30, 3.0)
    log.add(record(4))
    log.close()
    lines = [json.loads(line) for line in lines_of(tmp_path)]
    assert lines == [record(1), record(2), record(3) | {"eval_loss": 1.5}, record(4)]
    for value in (2.5, 1.5):
        log = TrainingLog(tmp_path, start=4, enabled=True)
        log.add(record(4) | {"eval_loss": value})
        log.close()
    assert shown_by_tensorboard(tmp_path)["eval_loss"] == [(3, 1.5), (4, 1.5)]


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
    assert (log.last, log.tokens) == ({}, 0)
    log.close()
    assert lines_of(tmp_path) == []


@pytest.mark.parametrize("enabled", [True, False])
def test_a_missing_file_is_an_error_that_says_what_to_do(tmp_path, enabled):
    message = (
        f"{tmp_path}/metrics.jsonl is missing, which has the records of the steps up to 4, from "
        f"which training goes on: put it back, or delete {tmp_path} to train anew"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TrainingLog(tmp_path, start=4, enabled=enabled)


@pytest.mark.parametrize(
    ("lines", "number", "found"),
    [
        ([], 1, ""),
        (LINES[:2], 3, ""),
        ([*LINES[:2], LINES[2][:9]], 3, '{"step": '),
        ([LINES[0], LINES[2], LINES[3]], 2, LINES[2].strip()),
        ([LINES[0], "7\n", LINES[2]], 2, "7"),
        ([LINES[0], "\udcff\n", LINES[2]], 2, "\ufffd"),
    ],
)
@pytest.mark.parametrize("enabled", [True, False])
def test_a_step_that_lacks_its_line_is_an_error(tmp_path, lines, number, found, enabled):
    content = "".join(lines).encode(errors="surrogateescape")
    (tmp_path / "metrics.jsonl").write_bytes(content)
    message = (
        f"{tmp_path}/metrics.jsonl must have the record of step {number} in line {number}, "
        f"since training goes on from step 3, got {found!r}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TrainingLog(tmp_path, start=3, enabled=enabled)
    assert (tmp_path / "metrics.jsonl").read_bytes() == content


def test_a_worker_that_is_not_the_chief_reads_but_does_not_write(tmp_path):
    write_lines(tmp_path, *LINES)
    before = sorted(tmp_path.rglob("*"))
    log = TrainingLog(tmp_path, start=3, enabled=False)
    assert log.tokens == 30
    log.add(record(4))
    log.flush()
    log.close()
    assert log.mean_loss == 2.5  # of 4, 3, 2 and 1
    assert lines_of(tmp_path) == [line.strip() for line in LINES]
    assert sorted(tmp_path.rglob("*")) == before


def test_the_mean_loss_is_that_of_the_last_fifty_steps(tmp_path):
    log = TrainingLog(tmp_path, start=0, enabled=True)
    for step in range(1, 61):
        log.add({"step": step, "tokens": 1, "loss": step**2})
    log.close()
    mean = sum(step**2 for step in range(11, 61)) / 50
    assert log.mean_loss == pytest.approx(mean, rel=1e-12)
    # Also when the process that did those steps is gone.
    assert TrainingLog(tmp_path, start=60, enabled=False).mean_loss == log.mean_loss


def test_numbers_that_json_has_no_word_for_are_null(tmp_path):
    log = TrainingLog(tmp_path, start=0, enabled=True)
    log.add(record(1) | {"gradient_norm": math.inf})
    log.add(record(2) | {"gradient_norm": math.nan})
    log.close()
    assert [json.loads(line)["gradient_norm"] for line in lines_of(tmp_path)] == [None, None]
