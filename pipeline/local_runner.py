"""Runs the pipeline on this machine: components in turn, Beam in process, metadata in SQLite.

`gpt2-tfx run` calls `run`. TFX's own command line takes this file as it is:

    tfx pipeline create --engine=local --pipeline-path=pipeline/local_runner.py
    tfx run create --engine=local --pipeline-name=shakespeare

and then the environment variable GPT2_TFX_CONFIG names the configuration.
"""

import contextlib
import fcntl
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import logging as absl_logging
from tfx.dsl.io import fileio
from tfx.orchestration.local.local_dag_runner import LocalDagRunner

from data.corpora import CORPORA
from data.prepare import prepare
from model.strategy import make_strategy
from pipeline.config import PipelineConfig
from pipeline.config_file import load_config
from pipeline.graph import create_pipeline
from pipeline.summary import Summary, summarize

DEFAULT_CONFIG = "shakespeare"


def run(config: PipelineConfig) -> Summary | None:
    """Runs every component, writes `<output>/summary.json` and returns what it says.

    Returns:
        None when nothing ran: `tfx pipeline create` only wants to know the pipeline's name.

    Raises:
        ValueError: Bad data or settings, found on the way; nothing is pushed then.
    """
    for name, folder in (("output", config.output), ("data.path", config.data_folder)):
        config.beam.check_folder(name, folder)
    runner = _Runner(config)
    runner.run(create_pipeline(config))
    return runner.summary


class _Runner(LocalDagRunner):
    """Prepares a run when there is to be one, and sums it up: `summary` is None until then."""

    def __init__(self, config: PipelineConfig) -> None:
        super().__init__()
        self._config = config
        self.summary: Summary | None = None

    def run_with_ir(self, *args: Any, **kwargs: Any) -> None:
        # Before anything starts TensorFlow: some strategies change how it starts.
        make_strategy(self._config.training.strategy)
        Path(self._config.output).mkdir(parents=True, exist_ok=True)
        with alone_in(self._config.output):
            # Whoever reads it after a run that failed must not take the last run's for this one's.
            _summary_path(self._config).unlink(missing_ok=True)
            path = self._config.data.path
            if path is not None and not fileio.isdir(path):
                raise ValueError(
                    f"data.path must be a folder with texts, got {path!r}, which is no folder"
                )
            if self._config.data.corpus in CORPORA:
                prepare(self._config.data.corpus, Path(self._config.data_folder))
            super().run_with_ir(*args, **kwargs)
            self.summary = summarize(self._config)
            self.summary.write(_summary_path(self._config))


@contextlib.contextmanager
def alone_in(output: str | os.PathLike[str]) -> Iterator[None]:
    """Keeps other runs out of an output folder, in which two would mix up their checkpoints.

    A run that is killed keeps nobody out: the system takes back what it had locked.

    Raises:
        ValueError: One is in there.
    """
    with Path(output, "run.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                "output must be a folder in which no other run is going on, got "
                f"{os.fspath(output)!r}"
            ) from None
        yield


def _summary_path(config: PipelineConfig) -> Path:
    return Path(config.output) / "summary.json"


def log_to_file(path: Path) -> None:
    """Sends the libraries' log to a file, and to stderr only components' beginnings and ends."""
    file = logging.FileHandler(path)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[file, _Progress()], force=True)
    for library in (absl_logging.get_absl_logger(), tf.get_logger()):
        library.handlers = []
        library.propagate = True
    # Said outright, because TensorFlow lowers it for a moment when it saves a model, and what it
    # then restores is WARNING unless it was set.
    absl_logging.set_verbosity(absl_logging.INFO)
    logging.captureWarnings(True)


class _Progress(logging.Handler):
    """Prints a line when a component begins and one when it has ended, with its seconds."""

    def emit(self, record: logging.LogRecord) -> None:
        # The words are those of tfx/orchestration/local/local_dag_runner.py.
        message = re.fullmatch(r"Component (\S+) is (running|finished)\.", record.getMessage())
        if not message:
            return
        name, event = message.groups()
        if event == "running":
            self._begin = time.perf_counter()
            print(f"{name} ...", file=sys.stderr, flush=True)
        else:
            seconds = time.perf_counter() - self._begin
            print(f"{name} done, {seconds:.1f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    outcome = run(load_config(os.environ.get("GPT2_TFX_CONFIG", DEFAULT_CONFIG)))
    if outcome:
        print(outcome.describe())
