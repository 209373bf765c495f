"""What a training run writes down: a JSON line and TensorBoard scalars for each step."""

import collections
import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

_MEAN_OVER = 50  # steps


class TrainingLog:
    """Appends to `metrics.jsonl` and to TensorBoard's files in `tensorboard/`.

    Args:
        folder: Where both go.
        start: Steps that the run has behind it. Lines of later steps, written between the last
            checkpoint and an interruption, are dropped: those steps are about to be done again.
            TensorBoard is told to forget them too.
        enabled: Whether this process writes at all.

    Raises:
        ValueError: `metrics.jsonl` is missing, or lacks one of the steps that the run has behind
            it.
    """

    def __init__(self, folder: Path, start: int, enabled: bool) -> None:
        self._path = folder / "metrics.jsonl"
        self._enabled = enabled
        self._losses: collections.deque[float] = collections.deque(maxlen=_MEAN_OVER)
        self.last: dict[str, float] = {}
        self.eval_losses: dict[int, float] = {}  # those that are finite, by step
        if not enabled:
            collections.deque(self._lines(start), maxlen=0)  # reads them all
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._write_anew(self._lines(start))
        self._writer = EventFileWriter(str(folder / "tensorboard"))
        self._forget_from(start + 1)

    @property
    def tokens(self) -> int:
        """Tokens that were targets so far."""
        return int(self.last.get("tokens", 0))

    @property
    def mean_loss(self) -> float:
        """The mean loss of the last 50 steps, nats a token."""
        return sum(self._losses) / len(self._losses)

    def add(self, record: dict[str, float]) -> None:
        """Writes one step's record, which must hold `step`, `tokens` and `loss`.

        A record of the last step again takes the place of that. Numbers that are not finite become
        null, for which JSON has a word.
        """
        replaces = record["step"] == self.last.get("step")
        if replaces:
            self._losses.pop()
        self._remember(record)
        if not self._enabled:
            return
        step = int(record["step"])
        written = {
            name: number if math.isfinite(number) else None for name, number in record.items()
        }
        line = json.dumps(written) + "\n"
        values = [
            Summary.Value(tag=name, simple_value=number)
            for name, number in record.items()
            if name != "step"
        ]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        if not replaces:
            self._file.write(line)
            self._writer.add_event(event)
            return
        self._forget_from(step)
        self._writer.add_event(event)
        self._writer.flush()
        # Last: while the line is the old one, it is known that there is more to be added.
        *before, _ = self._path.read_text().splitlines(keepends=True)
        self._file.close()
        self._write_anew([*before, line])

    def flush(self) -> None:
        """Brings all that was added to disk."""
        if self._enabled:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the files."""
        if self._enabled:
            self._file.close()
            self._writer.close()

    def _write_anew(self, lines: Iterable[str]) -> None:
        """Puts the lines in place of the file, and opens it for more."""
        staged = self._path.with_suffix(".staged")
        with staged.open("w") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(self._path)
        self._file = self._path.open("a", buffering=1)  # whole lines, as soon as they are known

    def _forget_from(self, step: int) -> None:
        """Makes TensorBoard drop what it has read of this step and later ones.

        The first such event in a folder does nothing. tf.summary can't write it.
        """
        session = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(wall_time=time.time(), step=step, session_log=session))

    def _remember(self, record: dict[str, float]) -> None:
        self.last = record
        self._losses.append(record["loss"])
        if math.isfinite(record.get("eval_loss", math.nan)):
            self.eval_losses[int(record["step"])] = record["eval_loss"]

    def _lines(self, start: int) -> Iterator[str]:
        """Yields and remembers the lines of the steps that are done, and reads no further."""
        if start == 0:
            return
        if not self._path.exists():
            raise ValueError(
                f"{self._path} is missing, which has the records of the steps up to {start}, from "
                f"which training goes on: put it back, or delete {self._path.parent} to train anew"
            )
        with self._path.open(errors="replace") as file:
            for step in range(1, start + 1):
                line = file.readline().rstrip("\n")
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    record = None
                if not isinstance(record, dict) or record.get("step") != step:
                    raise ValueError(
                        f"{self._path} must have the record of step {step} in line {step}, since "
                        f"training goes on from step {start}, got {line[:80]!r}"
                    )
                self._remember(
                    {name: math.nan if value is None else value for name, value in record.items()}
                )
                yield line + "\n"
