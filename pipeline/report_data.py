"""What the report shows of a run's training, documents and refused records."""

import dataclasses
import itertools
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from tfx.dsl.io import fileio

from components.corpus_counts import REFUSED
from components.token_files import map_documents, tokens_folder
from components.transformed_examples import list_files, read_batches
from pipeline.config import PipelineConfig
from pipeline.run_report import RunReport

# More of them would make a page that nobody reads to the end; the file has them all.
SHOWN_REFUSALS = 50

# Points of a curve. The loss of a step depends on its few texts; a mean shows where it goes.
CURVE_POINTS = 120

SPLITS = ("train", "eval")


@dataclasses.dataclass(frozen=True)
class Curves:
    """A training's course, each curve a list of (step, value).

    Args:
        train_loss: Nats a token, the mean of `steps_a_point` steps.
        eval_loss: Nats a token, on the measured part of the eval split.
        learning_rate: The optimiser's.
        steps_a_point: Steps that a point of `train_loss` is the mean of.
    """

    train_loss: list[tuple[float, float]]
    eval_loss: list[tuple[float, float]]
    learning_rate: list[tuple[float, float]]
    steps_a_point: int


@dataclasses.dataclass(frozen=True)
class Refusals:
    """Records that were refused: the first ones, how many there are, and the file with them all."""

    shown: list[dict[str, Any]]
    total: int
    path: str


def read_curves(report: RunReport) -> Curves | None:
    """Returns the course of the run's training; None if its log is gone."""
    path = Path((report.training or {}).get("logs", "")) / "metrics.jsonl"
    if not path.is_file():
        return None
    with path.open() as file:
        records = [json.loads(line) for line in file]
    size = max(1, math.ceil(len(records) / CURVE_POINTS))
    return Curves(
        train_loss=_thin(records, "loss", size),
        eval_loss=_thin([record for record in records if "eval_loss" in record], "eval_loss"),
        learning_rate=_thin(records, "learning_rate", size),
        steps_a_point=size,
    )


def _thin(records: list[dict[str, Any]], name: str, size: int = 1) -> list[tuple[float, float]]:
    """Returns the means of each `size` values, at their middle; nulls, once infinite, left out."""
    points = []
    for begin in range(0, len(records), size):
        part = [record for record in records[begin : begin + size] if record[name] is not None]
        if part:
            steps, values = [record["step"] for record in part], [record[name] for record in part]
            points.append((sum(steps) / len(steps), sum(values) / len(values)))
    return points


def read_lengths(config: PipelineConfig, report: RunReport) -> dict[str, np.ndarray] | None:
    """Returns the documents' lengths in tokens, the end of text among them, for each split.

    They are read from the files that the Trainer mapped the tokens from, and from the transformed
    examples where those are gone. None without examples.
    """
    step = report.steps.get("tokens")
    if step is None or not fileio.exists(step.path):
        return None
    lengths = {}
    for split in SPLITS:
        files = list_files([os.path.join(step.path, f"Split-{split}", "*")])
        folder = tokens_folder(Path(config.checkpoints), files)
        if folder.exists():  # else it would be written
            lengths[split] = map_documents(files, folder)[1]
        else:
            lengths[split] = np.concatenate([batch for _, batch, _ in read_batches(files)])
    return lengths


def read_refusals(config: PipelineConfig, report: RunReport) -> Refusals | None:
    """Returns the records that the run refused; None where no file tells.

    TFX deletes what a failed component made, so a run that failed there has left them in the
    configuration's folder, `refused_folder`, where the next run leaves its own.
    """
    step = report.steps.get("examples")
    folder = step.path if step else config.refused_folder
    path = os.path.join(folder, REFUSED)
    if not fileio.exists(path):
        return None
    if step is None and os.path.getmtime(path) < report.run.started.timestamp():
        return None  # an earlier run's: this one failed before it read anything
    with fileio.open(path) as file:
        shown = [json.loads(line) for line in itertools.islice(file, SHOWN_REFUSALS)]
        return Refusals(shown, total=len(shown) + sum(1 for _ in file), path=path)
