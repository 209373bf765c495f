"""model/checkpoints.py."""

from pathlib import Path

import pytest
import tensorflow as tf

from model.checkpoints import Checkpoints


def checkpoints_of(
    folder: Path, variable: tf.Variable, keep: int = 2, is_writer: bool = True
) -> Checkpoints:
    return Checkpoints(folder, tf.train.Checkpoint(variable=variable), keep, is_writer)


def test_the_newest_checkpoint_is_restored_and_older_ones_go(tmp_path):
    variable = tf.Variable(0.0)
    checkpoints = checkpoints_of(tmp_path / "run", variable, keep=3)
    for step in (5, 10, 100, 105, 110):
        variable.assign(step)
        checkpoints.save(step)
    names = {path.stem for path in (tmp_path / "run").glob("*.index")}
    assert names == {"ckpt-100", "ckpt-105", "ckpt-110"}
    restored = tf.Variable(0.0)
    assert checkpoints_of(tmp_path / "run", restored).restore()
    assert restored.numpy() == 110


def test_checkpoints_of_an_earlier_process_count_towards_those_that_are_kept(tmp_path):
    for step in (1, 2, 3):
        checkpoints = checkpoints_of(tmp_path, tf.Variable(0.0))
        checkpoints.restore()
        checkpoints.save(step)
    assert {path.stem for path in tmp_path.glob("*.index")} == {"ckpt-2", "ckpt-3"}


def test_without_a_checkpoint_nothing_is_restored(tmp_path):
    variable = tf.Variable(7.0)
    assert not checkpoints_of(tmp_path / "none", variable).restore()
    assert variable.numpy() == 7


def test_what_is_not_the_writer_writes_nothing(tmp_path):
    checkpoints_of(tmp_path / "run", tf.Variable(0.0), is_writer=False).save(1)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_lacks_a_variable_is_an_error(tmp_path):
    checkpoints_of(tmp_path, tf.Variable(0.0)).save(1)
    checkpoint = tf.train.Checkpoint(variable=tf.Variable(0.0), other=tf.Variable(0.0))
    with pytest.raises(AssertionError, match="not bound to checkpointed values"):
        Checkpoints(tmp_path, checkpoint, 2, is_writer=True).restore()
