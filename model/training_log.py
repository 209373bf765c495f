"""What a training run writes down: a JSON line and TensorBoard scalars for each step."""

import json
import os
from pathlib import Path

import tensorflow as tf


class TrainingLog:
    """Appends to `metrics.jsonl` and to TensorBoard's files in `tensorboard/`.

    Args:
        folder: Where both go.
        start: Steps that the run has behind it. Lines of later steps, written between the last
            checkpoint and an interruption, are dropped: those steps are about to be done again.
        enabled: Whether this process writes at all.
    """

    def __init__(self, folder: Path, start: int, enabled: bool) -> None:
        self._path = folder / "metrics.jsonl"
        self.records: list[dict[str, float]] = []
        if self._path.exists():
            lines = self._path.read_text().splitlines()
            self.records = [r for r in map(_parse, lines) if r and r["step"] <= start]
        self._enabled = enabled
        if enabled:
            folder.mkdir(parents=True, exist_ok=True)
            staged = self._path.with_suffix(".staged")
            staged.write_text("".join(json.dumps(record) + "\n" for record in self.records))
            os.replace(staged, self._path)
            self._file = self._path.open("a")
            self._writer = tf.summary.create_file_writer(str(folder / "tensorboard"))

    @property
    def tokens(self) -> int:
        """Tokens that were targets so far."""
        return int(self.records[-1]["tokens"]) if self.records else 0

    def add(self, record: dict[str, float]) -> None:
        """Writes one step's record; it must hold `step`."""
        self.records.append(record)
        if not self._enabled:
            return
        self._file.write(json.dumps(record) + "\n")
        with self._writer.as_default():
            for name, value in record.items():
                if name != "step":
                    tf.summary.scalar(name, value, step=int(record["step"]))

    def flush(self) -> None:
        """Brings all that was added to disk."""
        if self._enabled:
            self._file.flush()
            self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the files."""
        if self._enabled:
            self._file.close()
            self._writer.close()

    def mean_loss(self, last: int) -> float:
        """Returns the mean loss of the last `last` steps, nats a token."""
        losses = [record["loss"] for record in self.records[-last:]]
        return sum(losses) / len(losses)


def _parse(line: str) -> dict[str, float] | None:
    """Returns the record, or None for a line that an interruption cut off."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None
