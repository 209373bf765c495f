"""Checkpoints of a training run: whole ones only, the newest few and the best.

    checkpoints/
        best.json              which of them had the lowest eval loss
        step-000200/
            state.index        what tf.train.Checkpoint writes
            state.data-00000-of-00001
            SHA256SUMS         of the files above: `sha256sum --check` reads it

A folder is written as `step-000200.staged` and renamed when it is complete, so that one cut off in
the middle never has a checkpoint's name. What happens to it later, on a full or failing disk, shows
in its sums. `tf.train.CheckpointManager` does neither, and does not know which one is best.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from model.staged_file import write_whole
from model.strategy import Workers

STATE, SUMS, BEST = "state", "SHA256SUMS", "best.json"
_STEP_FILE = "step.json"  # older versions wrote it, and it is in their sums
_STAGED = ".staged"
_NO_CHECKPOINT, _NONE_WHOLE = 0, -1


class Checkpoints:
    """Writes and restores a run's state in one folder, which all workers must see.

    Args:
        folder: Where they lie; made when the first is written.
        checkpoint: What is saved.
        keep: How many of the newest are kept. The one with the lowest eval loss of those that
            stand at a measured step is kept beside them, however old it is.
        workers: Who trains together. The chief alone writes.
    """

    def __init__(
        self, folder: Path, checkpoint: tf.train.Checkpoint, keep: int, workers: Workers
    ) -> None:
        self._folder = folder
        self._checkpoint = checkpoint
        self._keep = keep
        self._workers = workers

    def restore(self) -> int:
        """Restores the newest whole checkpoint and returns its step, 0 if there is none.

        Those that are not whole are named on stderr and deleted, so that they don't count among
        those that are kept. Nothing is restored before a checkpoint has proved whole.

        Raises:
            ValueError: There are checkpoints but none is whole, the workers find different ones, or
                the newest is of another model or configuration.
        """
        step, refused = self._examine()
        found = self._workers.gather(step)
        if len(set(found)) > 1:
            raise ValueError(
                f"every worker must see the same checkpoints in {self._folder}, but the newest "
                f"whole ones that they find are of steps {found} (0: none, -1: damaged ones only)"
            )
        if step == _NONE_WHOLE:
            raise ValueError(
                f"no checkpoint in {self._folder} is whole, delete them to start anew: "
                + "; ".join(f"{folder.name}: {damage}" for folder, damage in refused.items())
            )
        if self._workers.is_chief:
            for folder, damage in refused.items():
                print(f"deleting checkpoint {folder}: {damage}", file=sys.stderr)
                shutil.rmtree(folder)
        if step != _NO_CHECKPOINT:
            self._read(step)
        return step

    def restore_best(self, eval_losses: Mapping[int, float]) -> int:
        """Restores the checkpoint with the lowest eval loss and returns its step.

        All workers must call it, and the chief must have saved the last step.

        Args:
            eval_losses: As in `save`.

        Raises:
            ValueError: No checkpoint has an eval loss, or the best one is not whole any more.
        """
        best = self._best(eval_losses) if self._workers.is_chief else None
        step, *_ = self._workers.gather(_NO_CHECKPOINT if best is None else best)
        if step == _NO_CHECKPOINT:
            raise ValueError(f"no checkpoint in {self._folder} has a finite eval loss")
        damage = _damage(self._path(step))
        if any(self._workers.gather(damage is not None)):  # all end, whoever sees it
            damage = damage or "another worker finds it damaged"
            raise ValueError(f"{self._path(step)}, the best checkpoint, is not whole: {damage}")
        self._read(step)
        return step

    def save(self, step: int, eval_losses: Mapping[int, float]) -> None:
        """Writes a checkpoint, if there is none of the step, and deletes those not to be kept.

        Args:
            step: The step that was just done.
            eval_losses: Nats a token, finite, of each step after which it was measured.
        """
        if not self._workers.is_chief:
            return
        if not self._path(step).exists():
            self._write(self._path(step))
        self._rotate(eval_losses)

    def is_best(self, step: int, eval_losses: Mapping[int, float]) -> bool:
        """Returns whether the step's eval loss is below that of each other checkpoint that has one.

        Args:
            step: The step.
            eval_losses: As in `save`.
        """
        others = (other for other in map(_step, self._folders()) if other != step)
        return step in eval_losses and all(
            eval_losses[step] < eval_losses[other] for other in others if other in eval_losses
        )

    def _read(self, step: int) -> None:
        try:
            self._checkpoint.read(str(self._path(step) / STATE)).assert_consumed()
        except (AssertionError, ValueError) as error:  # of names or of shapes
            raise ValueError(
                f"{self._path(step)} must be a checkpoint of this model and configuration: {error}"
            ) from error

    def _write(self, path: Path) -> None:
        staged = path.with_name(path.name + _STAGED)
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        self._checkpoint.write(str(staged / STATE))
        (staged / SUMS).write_bytes(_sums(staged))
        _bring_to_disk(staged)
        staged.rename(path)

    def _rotate(self, eval_losses: Mapping[int, float]) -> None:
        folders = self._folders()
        kept = set(folders[: self._keep])
        best = self._best(eval_losses)
        if best is not None:
            kept.add(self._path(best))
            described = {"step": best, "eval_loss": eval_losses[best]}
            write_whole(self._folder / BEST, json.dumps(described) + "\n")
        else:
            (self._folder / BEST).unlink(missing_ok=True)  # of one that was damaged
        for folder in [*self._folder.glob(f"step-*{_STAGED}"), *folders]:
            if folder not in kept:
                shutil.rmtree(folder)

    def _best(self, eval_losses: Mapping[int, float]) -> int | None:
        """Returns the step of the checkpoint with the lowest eval loss; None if none has one."""
        measured = [step for step in map(_step, self._folders()) if step in eval_losses]
        return min(measured, key=lambda step: (eval_losses[step], step), default=None)

    def _examine(self) -> tuple[int, dict[Path, str]]:
        """Returns the newest whole one's step, and what is wrong with those that are not whole."""
        damages = {folder: _damage(folder) for folder in self._folders()}
        refused = {folder: damage for folder, damage in damages.items() if damage is not None}
        whole = [_step(folder) for folder in damages if folder not in refused]
        if whole:
            return whole[0], refused
        return (_NONE_WHOLE if refused else _NO_CHECKPOINT), refused

    def _folders(self) -> list[Path]:
        """Returns the checkpoints' folders, the newest first."""
        found = [
            path for path in self._folder.glob("step-*") if re.fullmatch(r"\d+", path.name[5:])
        ]
        return sorted(found, key=_step, reverse=True)

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:06d}"


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _damage(folder: Path) -> str | None:
    """Returns why the checkpoint is not whole, or None if it is."""
    if not (folder / SUMS).exists():
        return f"it has no {SUMS}"
    stated, found = (folder / SUMS).read_bytes(), _sums(folder)
    if stated == found:
        return None
    differing = set(stated.split(b"\n")) ^ set(found.split(b"\n"))
    names = sorted({line.partition(b"  ")[2].decode(errors="replace") for line in differing} - {""})
    return f"{SUMS} does not agree with {', '.join(names) or 'the files'}"


def _sums(folder: Path) -> bytes:
    """Returns the SHA-256 sums of a checkpoint's files as `sha256sum` prints them.

    What others leave in the folder does not count: a file system's or an editor's own files.
    """
    paths = sorted((*folder.glob(f"{STATE}.*"), *folder.glob(_STEP_FILE)))
    return b"".join(f"{_digest(path)}  {path.name}\n".encode() for path in paths)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _bring_to_disk(folder: Path) -> None:
    """Returns when the files would survive a loss of power, and older ones may be deleted."""
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
