"""Small training runs for tests, in this process or, as a program, in one of their own.

    python -m tests.small_training '[{"folder": "/tmp/run", "dropout": 0.1, "steps": 3}]'

trains once for each dict, the arguments of `train_small`, and prints a line of JSON for each.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from model.config import GPT2Config
from model.packing import PackedTokens
from model.train_step import TrainStep
from model.training import TrainingResult, train
from model.training_config import StrategyConfig, TrainingConfig
from tests.small_models import SMALL
from tests.small_workers import free_addresses

ROOT = Path(__file__).parents[1]
END = 0
TIMEOUT = 300  # seconds; a tenth of it is enough on an idle machine
# What differs from run to run.
SPEED = ("tokens_per_second", "model_flop_utilisation", "peak_memory_bytes")
TRAINING: dict[str, Any] = {
    "steps": 10,
    "global_batch_size": 4,
    "learning_rate": 0.01,
    "warmup_steps": 2,
    "weight_decay": 1.0,
    "eval_every_steps": 4,
    "eval_batches": 2,
    "checkpoint_every_steps": 3,
    "keep_checkpoints": 2,
    "loss_chunk_size": 16,
    "seed": 1,
}


def small_split(seed: int, num_documents: int) -> PackedTokens:
    """Documents that count upwards by a step of their own: there is something to learn."""
    generator = np.random.default_rng(seed)
    documents = []
    for length in generator.integers(3, 30, num_documents):
        first, step = generator.integers(1, 4, 2)
        documents.append(np.append((first + step * np.arange(length)) % 60 + 1, END))
    lengths = np.array([len(document) for document in documents])
    return PackedTokens(np.concatenate(documents), lengths, SMALL["max_length"], end_of_text=END)


def same_rows() -> PackedTokens:
    """A split whose rows are all alike."""
    return PackedTokens(np.full(240, END), np.array([240]), SMALL["max_length"], end_of_text=END)


def train_small(
    folder: str | Path,
    *,
    dropout: float = 0.0,
    strategy: dict[str, Any] | None = None,
    all_rows_alike: bool = False,
    num_layers: int = 1,
    pause: float = 0.0,
    worker_terminated_in_evaluation: int | None = None,
    **settings: Any,
) -> TrainingResult:
    """Trains a small model for a few steps; `settings` are those of `TrainingConfig`.

    `pause` is the seconds that it waits before each update. The worker of that number, if one is
    given, has SIGTERM in every batch of an evaluation.
    """

    def terminate(_: int) -> None:
        if worker_terminated_in_evaluation is not None:
            worker = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
            if worker == worker_terminated_in_evaluation:
                signal.raise_signal(signal.SIGTERM)

    with before_each_update(lambda _: time.sleep(pause)), before_each_evaluated_batch(terminate):
        return train(
            GPT2Config(**(SMALL | {"num_layers": num_layers, "dropout": dropout})),
            TrainingConfig(**(TRAINING | settings), strategy=StrategyConfig(**(strategy or {}))),
            same_rows() if all_rows_alike else small_split(seed=0, num_documents=10),
            small_split(seed=1, num_documents=8),
            Path(folder),
        )


def metrics(folder: str | Path) -> list[dict[str, float]]:
    """What the run wrote of each step, but for its speed."""
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        for name in SPEED:
            del record[name]
    return records


def shown_by_tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The steps and numbers of each curve, as TensorBoard's own reader has them."""
    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return {
        tag: [
            (event.step, float(tf.make_ndarray(event.tensor_proto)))
            for event in accumulator.Tensors(tag)
        ]
        for tag in accumulator.Tags()["tensors"]
    }


def start(runs: list[dict[str, Any]], **environment: str) -> subprocess.Popen[str]:
    """Starts the runs, one after the other, in a process of their own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.small_training", json.dumps(runs)],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What each run ended with, by the names in `TrainingResult`, or its `error`."""
    try:
        output, errors = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    assert process.returncode == 0, errors[-5000:]
    return [json.loads(line) for line in output.splitlines()]


def last_step(folder: str | Path) -> int:
    """The last step that the run has written a whole line of; 0 if there is none."""
    path = Path(folder) / "metrics.jsonl"
    content = path.read_bytes() if path.exists() else b""
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    return json.loads(lines[-1])["step"] if lines else 0


@contextlib.contextmanager
def workers(runs: list[dict[str, Any]], count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that do the runs together; what is left of them at the end is killed.

    `{worker}` in a run's folder stands for the number of the worker.
    """
    addresses = free_addresses(count)
    processes = []
    try:
        for index in range(count):
            config = {
                "cluster": {"worker": addresses},
                "task": {"type": "worker", "index": index},
            }
            own = [run | {"folder": run["folder"].format(worker=index)} for run in runs]
            processes.append(start(own, TF_CONFIG=json.dumps(config)))
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def before_each_update(action: Callable[[int], None]) -> AbstractContextManager[None]:
    """Has every training call `action` with the number of the update that it is about to make."""
    return _before_each("update", lambda step: action(step.steps_done + 1))


def before_each_evaluated_batch(action: Callable[[int], None]) -> AbstractContextManager[None]:
    """Has every training call `action` with the steps done before each batch that it evaluates."""
    return _before_each("_nll", lambda step: action(step.steps_done))


@contextlib.contextmanager
def _before_each(method: str, action: Callable[[TrainStep], None]) -> Iterator[None]:
    original = getattr(TrainStep, method)

    def act_and_call(self: TrainStep, *arguments: Any) -> Any:
        action(self)
        return original.__get__(self, TrainStep)(*arguments)

    setattr(TrainStep, method, act_and_call)
    try:
        yield
    finally:
        setattr(TrainStep, method, original)


def _main() -> None:
    for run in json.loads(sys.argv[1]):
        try:
            result = train_small(**run)
        except ValueError as error:
            print(json.dumps({"error": str(error)}), flush=True)
        else:
            names = ("step", "train_loss", "eval_loss", "tokens_seen")
            print(json.dumps({name: getattr(result, name) for name in names}), flush=True)


if __name__ == "__main__":
    _main()
