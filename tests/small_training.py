"""Small training runs for tests, in this process or, as a program, in one of their own.

    python -m tests.small_training '[{"folder": "/tmp/run", "dropout": 0.1, "steps": 3}]'

trains once for each dict, the arguments of `train_small`, and prints a line of JSON for each.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from model.config import GPT2Config
from model.packing import PackedTokens
from model.training import TrainingResult, train
from model.training_config import StrategyConfig, TrainingConfig
from tests.small_models import SMALL

ROOT = Path(__file__).parents[1]
END = 0
TIMEOUT = 300  # seconds; a tenth of it is enough on an idle machine
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
    **settings: Any,
) -> TrainingResult:
    """Trains a small model for a few steps; `settings` are those of `TrainingConfig`."""
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
        del record["tokens_per_second"]
    return records


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
    """What each run ended with: `train_loss`, `eval_loss` and `tokens_seen`, or its `error`."""
    try:
        output, errors = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    assert process.returncode == 0, errors[-5000:]
    return [json.loads(line) for line in output.splitlines()]


def _kill_before_update(number: int) -> None:
    """Has this process killed, as the kernel does it, before it makes its nth update."""
    from model.train_step import TrainStep

    update = TrainStep.update

    def update_or_die(self: TrainStep, ids: np.ndarray, weights: np.ndarray) -> Any:
        if self.steps_done + 1 == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return update(self, ids, weights)

    TrainStep.update = update_or_die  # type: ignore[method-assign]


def _main() -> None:
    for run in json.loads(sys.argv[1]):
        kill_before_update = run.pop("kill_before_update", None)
        if kill_before_update:
            _kill_before_update(kill_before_update)
        try:
            result = train_small(**run)
        except ValueError as error:
            print(json.dumps({"error": str(error)}), flush=True)
        else:
            names = ("train_loss", "eval_loss", "tokens_seen")
            print(json.dumps({name: getattr(result, name) for name in names}), flush=True)


if __name__ == "__main__":
    _main()
