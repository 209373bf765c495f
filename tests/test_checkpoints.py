"""model/checkpoints.py."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

from model.checkpoints import Checkpoints
from model.strategy import Workers, make_strategy
from model.training_config import StrategyConfig


class FakeWorkers(Workers):
    """One of several workers; the others find checkpoints of the steps that are given."""

    def __init__(self, is_chief: bool, others: tuple[int, ...] = ()) -> None:
        self.is_chief = is_chief
        self._others = list(others)

    def gather(self, value: int) -> list[int]:
        return [value, *self._others]


def checkpoints_of(
    folder: Path, variable: tf.Variable, keep: int = 2, workers: Workers | None = None
) -> Checkpoints:
    return Checkpoints(
        folder,
        tf.train.Checkpoint(variable=variable),
        keep,
        workers or Workers(make_strategy(StrategyConfig())),
    )


def save_steps(folder: Path, *steps: int, keep: int = 2) -> None:
    """Saves the step's number as the one variable, after each of the steps."""
    variable = tf.Variable(0.0)
    checkpoints = checkpoints_of(folder, variable, keep)
    for step in steps:
        variable.assign(step)
        checkpoints.save(step, {})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def restored(folder: Path) -> tuple[int, float]:
    """The step that is restored and the variable's value after it; -7 if it is left alone."""
    variable = tf.Variable(-7.0)
    step = checkpoints_of(folder, variable).restore()
    return step, float(variable.numpy())


# --- which are kept ---


def test_the_newest_checkpoint_is_restored_and_older_ones_go(tmp_path):
    folder = tmp_path / "run"
    save_steps(folder, 5, 10, 100, 105, 1_000_000, keep=3)
    assert names(folder) == ["step-000100", "step-000105", "step-1000000"]
    assert restored(folder) == (1_000_000, 1_000_000)


def test_checkpoints_of_an_earlier_process_count_towards_those_that_are_kept(tmp_path):
    for step in (1, 2, 3):
        save_steps(tmp_path, step)
    assert names(tmp_path) == ["step-000002", "step-000003"]


@pytest.mark.parametrize(
    ("eval_losses", "kept", "best"),
    [
        ([3.0, 2.0, 2.5, 2.25, 2.125], [2, 4, 5], (2, 2.0)),
        ([3.0, 2.0, None, 1.5, None], [4, 5], (4, 1.5)),
        ([None, 2.0, None, None, None], [2, 4, 5], (2, 2.0)),
        ([2.0, 2.0, 2.0, 2.0, 2.0], [1, 4, 5], (1, 2.0)),
        ([None, None, None, None, None], [4, 5], None),
    ],
)
def test_the_one_with_the_lowest_eval_loss_is_kept_too(tmp_path, eval_losses, kept, best):
    measured: dict[int, float] = {}
    for step, eval_loss in enumerate(eval_losses, start=1):
        measured |= {} if eval_loss is None else {step: eval_loss}
        checkpoints_of(tmp_path, tf.Variable(0.0)).save(step, measured)
    expected = [f"step-{step:06d}" for step in kept]
    if best:
        step, eval_loss = best
        record = json.loads((tmp_path / "best.json").read_text())
        assert record == {"step": step, "eval_loss": eval_loss}
        expected = ["best.json", *expected]
    assert names(tmp_path) == expected


def test_one_is_best_that_has_a_lower_eval_loss_than_all_others_that_are_kept(tmp_path):
    checkpoints = checkpoints_of(tmp_path, tf.Variable(0.0), keep=1)
    assert checkpoints.is_best(1, {1: 3.0})
    for step in (1, 2, 3):
        checkpoints.save(step, {1: 3.0, 3: 3.5})
    assert names(tmp_path) == ["best.json", "step-000001", "step-000003"]
    for eval_loss, expected in ((2.9, True), (3.0, False), (3.1, False)):
        assert checkpoints.is_best(4, {1: 3.0, 2: 0.5, 3: 3.5, 4: eval_loss}) is expected
    assert not checkpoints.is_best(4, {1: 3.0})
    assert checkpoints.is_best(3, {1: 3.0, 3: 2.9})


def test_a_step_that_is_measured_later_has_its_checkpoint_left_as_it_is(tmp_path):
    checkpoints = checkpoints_of(tmp_path, tf.Variable(0.0), keep=1)
    checkpoints.save(1, {})
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("step-000001/*")}
    checkpoints.save(1, {1: 3.0})
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("step-000001/*")} == files
    assert json.loads((tmp_path / "best.json").read_text()) == {"step": 1, "eval_loss": 3.0}
    checkpoints.save(2, {1: 3.0, 2: 3.5})
    assert names(tmp_path) == ["best.json", "step-000001", "step-000002"]


def test_the_best_one_is_restored_where_it_is_asked_for(tmp_path):
    variable, eval_losses = tf.Variable(0.0), {1: 3.0, 2: 1.0, 3: 2.0}
    checkpoints = checkpoints_of(tmp_path, variable, keep=1)
    for step in (1, 2, 3, 4):
        variable.assign(step)
        checkpoints.save(step, eval_losses)
    assert checkpoints.restore_best(eval_losses) == 2
    assert variable.numpy() == 2
    assert restored(tmp_path) == (4, 4)  # as before, the newest


class Second(Workers):
    """The second of two workers; the chief says each time what is given."""

    def __init__(self, *of_chief: int) -> None:
        self.is_chief = False
        self._of_chief = list(of_chief)

    def gather(self, value: int) -> list[int]:
        return [self._of_chief.pop(0), value]


def test_the_best_one_is_the_chiefs_and_both_find_it_whole_or_end(tmp_path):
    variable = tf.Variable(0.0)
    for step in (1, 2):
        variable.assign(step)
        checkpoints_of(tmp_path, variable).save(step, {})
    # It may look into the folder before the chief has written the last step.
    second = checkpoints_of(tmp_path, variable, workers=Second(1, False))
    assert second.restore_best({2: 1.0}) == 1
    assert variable.numpy() == 1
    second = checkpoints_of(tmp_path, variable, workers=Second(2, True))
    with pytest.raises(ValueError, match="is not whole: another worker finds it damaged"):
        second.restore_best({2: 1.0})
    assert variable.numpy() == 1


def test_a_best_one_that_cannot_be_restored_is_an_error(tmp_path):
    variable = tf.Variable(7.0)
    checkpoints = checkpoints_of(tmp_path, variable)
    checkpoints.save(1, {})
    with pytest.raises(ValueError, match=f"^no checkpoint in {tmp_path} has a finite eval loss"):
        checkpoints.restore_best({2: 1.0})
    (tmp_path / "step-000001" / "state.index").write_bytes(b"")
    message = f"^{tmp_path}/step-000001, the best checkpoint, is not whole: SHA256SUMS does not"
    with pytest.raises(ValueError, match=message):
        checkpoints.restore_best({1: 1.0})
    assert variable.numpy() == 7


def test_without_a_checkpoint_nothing_is_restored(tmp_path):
    assert restored(tmp_path / "none") == (0, -7)


def test_the_sums_are_those_that_sha256sum_checks(tmp_path):
    save_steps(tmp_path, 1)
    (folder,) = tmp_path.iterdir()
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    checked = subprocess.run(check, cwd=folder, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    listed = {line.split(":")[0] for line in checked.stdout.splitlines()}
    assert listed == {path.name for path in folder.iterdir()} - {"SHA256SUMS"}


# --- damage ---


def restores_the_one_before(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Asserts that step 2's checkpoint, in which `name` was damaged, is refused for step 1's."""
    capsys.readouterr()
    assert restored(folder) == (1, 1), name
    assert re.fullmatch(
        rf"deleting checkpoint {re.escape(str(folder))}/step-000002: "
        rf"SHA256SUMS does not agree with .*{re.escape(name)}.*\n",
        capsys.readouterr().err,
    ), name
    assert names(folder) == ["step-000001"]


def damage_everywhere(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[bytes, int], bytes],
) -> int:
    """Damages each file of the newest checkpoint at each of its bytes; returns how often."""
    count = 0
    save_steps(tmp_path / "whole", 1, 2)
    for original in sorted((tmp_path / "whole" / "step-000002").iterdir()):
        content = original.read_bytes()
        for place in range(len(content)):
            shutil.copytree(tmp_path / "whole", tmp_path / "damaged")
            path = tmp_path / "damaged" / "step-000002" / original.name
            path.write_bytes(damage(content, place))
            name = "" if original.name == "SHA256SUMS" else original.name
            restores_the_one_before(tmp_path / "damaged", capsys, name)
            shutil.rmtree(tmp_path / "damaged")
            count += 1
    return count


def test_a_file_that_was_cut_off_anywhere_has_the_checkpoint_before_used(tmp_path, capsys):
    count = damage_everywhere(tmp_path, capsys, lambda content, place: content[:place])
    assert count > 450


def test_a_changed_byte_anywhere_has_the_checkpoint_before_used(tmp_path, capsys):
    def flip(content: bytes, place: int) -> bytes:
        return content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :]

    assert damage_everywhere(tmp_path, capsys, flip) > 450


@pytest.mark.parametrize("name", ["state.index", "state.data-00000-of-00001"])
def test_a_missing_file_has_the_checkpoint_before_used(tmp_path, capsys, name):
    save_steps(tmp_path, 1, 2)
    (tmp_path / "step-000002" / name).unlink()
    restores_the_one_before(tmp_path, capsys, name)


def test_what_others_leave_in_a_checkpoints_folder_is_no_damage(tmp_path, capsys):
    save_steps(tmp_path, 1, 2)
    (tmp_path / "step-000002" / ".nfs0001").touch()
    (tmp_path / "step-000002" / "folder").mkdir()
    assert restored(tmp_path) == (2, 2)
    assert capsys.readouterr().err == ""


def test_missing_sums_have_the_checkpoint_before_used(tmp_path, capsys):
    save_steps(tmp_path, 1, 2)
    (tmp_path / "step-000002" / "SHA256SUMS").unlink()
    assert restored(tmp_path) == (1, 1)
    assert capsys.readouterr().err == (
        f"deleting checkpoint {tmp_path}/step-000002: it has no SHA256SUMS\n"
    )


def test_one_that_was_being_written_is_not_restored_and_goes_with_the_next(tmp_path):
    save_steps(tmp_path, 1, 2)
    (tmp_path / "step-000002").rename(tmp_path / "step-000002.staged")
    assert restored(tmp_path) == (1, 1)
    save_steps(tmp_path, 2, 3)
    assert names(tmp_path) == ["step-000002", "step-000003"]
    assert restored(tmp_path) == (3, 3)


def test_damaged_ones_do_not_count_among_those_that_are_kept(tmp_path):
    save_steps(tmp_path, 1, 5, 6, keep=3)
    for step in (5, 6):
        (tmp_path / f"step-00000{step}" / "state.index").write_bytes(b"")
    assert restored(tmp_path) == (1, 1)
    save_steps(tmp_path, 2)
    assert names(tmp_path) == ["step-000001", "step-000002"]


def test_a_damaged_best_one_is_refused_and_another_one_is_best(tmp_path, capsys):
    eval_losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5}
    for step in eval_losses:
        checkpoints_of(tmp_path, tf.Variable(0.0), keep=2).save(step, eval_losses)
    (tmp_path / "step-000002" / "state.index").write_bytes(b"")
    assert restored(tmp_path) == (4, 0)
    assert "step-000002: SHA256SUMS does not agree with state.index" in capsys.readouterr().err
    eval_losses[5] = 2.25
    checkpoints_of(tmp_path, tf.Variable(0.0), keep=1).save(5, eval_losses)
    assert names(tmp_path) == ["best.json", "step-000003", "step-000005"]
    assert json.loads((tmp_path / "best.json").read_text()) == {"step": 3, "eval_loss": 2.0}


def test_where_the_best_one_is_damaged_and_no_other_is_measured_none_is_best(tmp_path):
    for step in (1, 2):
        checkpoints_of(tmp_path, tf.Variable(0.0)).save(step, {1: 3.0})
    (tmp_path / "step-000001" / "state.index").write_bytes(b"")
    assert restored(tmp_path) == (2, 0)
    save_steps(tmp_path, 3)
    assert names(tmp_path) == ["step-000002", "step-000003"]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text('{"step": 2, "ev')])
def test_one_of_an_older_version_has_a_file_more_in_its_sums(tmp_path, capsys, damage):
    save_steps(tmp_path, 1, 2)
    folder = tmp_path / "step-000002"
    (folder / "step.json").write_text('{"step": 2, "eval_loss": null}\n')
    sums = subprocess.run(
        ["sha256sum", "state.data-00000-of-00001", "state.index", "step.json"],
        cwd=folder,
        capture_output=True,
        check=True,
    )
    (folder / "SHA256SUMS").write_bytes(sums.stdout)
    assert restored(tmp_path) == (2, 2)
    damage(folder / "step.json")
    restores_the_one_before(tmp_path, capsys, "step.json")


def test_where_none_is_whole_it_is_an_error_that_names_them_all(tmp_path):
    save_steps(tmp_path, 1, 2)
    (tmp_path / "step-000001" / "state.index").write_bytes(b"")
    (tmp_path / "step-000002" / "SHA256SUMS").unlink()
    message = (
        f"no checkpoint in {tmp_path} is whole, delete them to start anew: "
        "step-000002: it has no SHA256SUMS; "
        "step-000001: SHA256SUMS does not agree with state.index"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        restored(tmp_path)
    assert names(tmp_path) == ["step-000001", "step-000002"]


# --- what does not match ---


def test_a_checkpoint_that_lacks_a_variable_is_an_error(tmp_path):
    save_steps(tmp_path, 1)
    checkpoint = tf.train.Checkpoint(variable=tf.Variable(0.0), other=tf.Variable(0.0))
    with pytest.raises(ValueError, match=r"step-000001 must be .*: .*not bound to checkpointed va"):
        Checkpoints(tmp_path, checkpoint, 2, FakeWorkers(is_chief=True)).restore()


def test_a_checkpoint_with_a_variable_too_many_is_an_error(tmp_path):
    checkpoint = tf.train.Checkpoint(variable=tf.Variable(0.0), other=tf.Variable(0.0))
    Checkpoints(tmp_path, checkpoint, 2, FakeWorkers(is_chief=True)).save(1, {})
    with pytest.raises(ValueError, match=r"step-000001 must be .*: (.|\n)*other"):
        restored(tmp_path)


def test_a_checkpoint_with_a_variable_of_another_shape_is_an_error(tmp_path):
    checkpoint = tf.train.Checkpoint(variable=tf.Variable([0.0, 0.0]))
    Checkpoints(tmp_path, checkpoint, 2, FakeWorkers(is_chief=True)).save(1, {})
    with pytest.raises(ValueError, match=r"step-000001 must be .*: (.|\n)*shape"):
        restored(tmp_path)


# --- several workers ---


def test_a_worker_that_is_not_the_chief_writes_and_deletes_nothing(tmp_path):
    worker = FakeWorkers(is_chief=False)
    checkpoints_of(tmp_path / "run", tf.Variable(0.0), workers=worker).save(1, {})
    assert not (tmp_path / "run").exists()
    save_steps(tmp_path / "run", 1, 2)
    (tmp_path / "run" / "step-000002" / "SHA256SUMS").unlink()
    assert checkpoints_of(tmp_path / "run", tf.Variable(0.0), workers=worker).restore() == 1
    assert names(tmp_path / "run") == ["step-000001", "step-000002"]


@pytest.mark.parametrize("is_chief", [True, False])
@pytest.mark.parametrize("other", [0, 1, -1])
def test_workers_that_find_different_checkpoints_are_an_error(tmp_path, is_chief, other):
    save_steps(tmp_path, 1, 2)
    variable = tf.Variable(-7.0)
    workers = FakeWorkers(is_chief, others=(other,))
    message = (
        f"every worker must see the same checkpoints in {tmp_path}, but the newest whole ones "
        f"that they find are of steps [2, {other}] (0: none, -1: damaged ones only)"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        checkpoints_of(tmp_path, variable, workers=workers).restore()
    assert variable.numpy() == -7
    assert names(tmp_path) == ["step-000001", "step-000002"]
