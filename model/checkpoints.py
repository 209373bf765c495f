"""Checkpoints of a training run."""

from pathlib import Path

import tensorflow as tf


class Checkpoints:
    """Writes and restores a run's state in one folder, keeping the newest few.

    Args:
        folder: Where they lie; made when the first is written.
        checkpoint: What is saved.
        keep: How many of the newest are kept.
        is_writer: Whether this process writes; the other workers only read.
    """

    def __init__(
        self, folder: Path, checkpoint: tf.train.Checkpoint, keep: int, is_writer: bool
    ) -> None:
        self._manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=keep)
        self._checkpoint = checkpoint
        self._is_writer = is_writer

    def restore(self) -> bool:
        """Restores the newest checkpoint and returns whether there was one.

        Raises:
            AssertionError: The checkpoint and the model do not match.
        """
        path = self._manager.latest_checkpoint
        if path is None:
            return False
        self._checkpoint.restore(path).assert_existing_objects_matched()
        return True

    def save(self, step: int) -> None:
        """Writes a checkpoint: under another name first, then renamed, by TensorFlow."""
        if self._is_writer:
            self._manager.save(checkpoint_number=step)
