"""A few updates of a small model, in this process or, as a program, in one of their own.

    python -m tests.small_step_runs '{"name": "mirrored", "num_devices": 2, "device": "cpu"}'

does all of `RUNS` under the strategy and prints what `run` returns of each as one line of JSON.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from model.strategy import make_strategy
from model.train_step import TrainStep
from model.training_config import StrategyConfig, TrainingConfig
from model.update_guards import SpikeGuard
from tests.small_models import randomize
from tests.small_steps import TINY, ragged_batch
from tests.small_workers import free_addresses

ROOT = Path(__file__).parents[1]
TIMEOUT = 300  # seconds; a tenth of it is enough on an idle machine
DOCUMENT_START = 7
STEPS = 7
OVERFLOWS_AT, SPIKES_AT = 1, 6
DEFAULTS: dict[str, Any] = {
    "steps": 100,
    "global_batch_size": 8,
    "warmup_steps": 0,
    "loss_chunk_size": 8,
}
WHOLE: dict[str, Any] = {"xla": False}
RUNS: dict[str, dict[str, Any]] = {
    "cut": {"xla": False, "accumulation_steps": 2, "vocab_multiple": 8},
    "cut_by_xla": {"xla": True, "accumulation_steps": 4, "recompute": "block"},
    "guarded": {
        "xla": False,
        "accumulation_steps": 2,
        "precision": "mixed_float16",
        "recompute": "attention",
        "document_mask": True,
        "average_decay": 0.9,
        "skip_spikes": 3.0,
    },
}

Outcome = dict[str, Any]


def run(strategy: dict[str, Any], **settings: Any) -> Outcome:
    """What `STEPS` updates return, and the weights, averaged or not, and moments after them.

    Where there are guards, one step overflows and a later one is a spike.
    """
    defaults: dict[str, Any] = {
        "steps": 100,
        "global_batch_size": 8,
        "warmup_steps": 0,
        "loss_chunk_size": 8,
    }
    config = TrainingConfig(**defaults, **settings, strategy=StrategyConfig(**strategy))
    step = TrainStep(TINY, config, make_strategy(config.strategy), DOCUMENT_START)
    randomize(step.model, seed=0, scale=0.5)
    if config.skip_spikes:
        with make_strategy(config.strategy).scope():
            step._spike_guard = SpikeGuard(config.skip_spikes, steps=4)
    results = []
    for number in range(1, STEPS + 1):
        if "loss_scale" in step.state:
            step.state["loss_scale"].value.assign(2.0**40 if number == OVERFLOWS_AT else 2.0**8)
        gamma = step.model.final_norm.gamma
        calm = gamma.numpy()
        if config.skip_spikes and number == SPIKES_AT:
            gamma.assign(20 * calm)
        results.append(step.update(*ragged_batch(TINY, 8, seed=number)))
        if config.skip_spikes and number == SPIKES_AT:
            gamma.assign(calm)
    return {
        "losses": [result.loss for result in results],
        "norms": [result.gradient_norm for result in results],
        "applied": [result.applied for result in results],
        "updates_skipped": step.updates_skipped,
        "moments": _lists(step.model.trainable_variables, step.optimizer._momentums),
        "weights": _lists(step.model.trainable_variables, step.copy_model().trainable_variables),
    }


def start(strategy: dict[str, Any], **environment: str) -> subprocess.Popen[str]:
    """Starts `RUNS` in a process of their own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.small_step_runs", json.dumps(strategy)],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_workers(count: int) -> list[subprocess.Popen[str]]:
    """Starts `RUNS` in so many processes that do them together."""
    addresses = free_addresses(count)
    configs = [
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        for index in range(count)
    ]
    return [start({"name": "multi_worker"}, TF_CONFIG=json.dumps(config)) for config in configs]


def outcomes(processes: list[subprocess.Popen[str]]) -> list[dict[str, Outcome]]:
    """What each process printed; none of them is left behind."""
    try:
        printed = [process.communicate(timeout=TIMEOUT) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, errors) in zip(processes, printed, strict=True):
        assert process.returncode == 0, errors[-5000:]
    return [json.loads(output) for output, _ in printed]


def _lists(variables: list[Any], values: list[Any]) -> dict[str, list[float]]:
    return {
        variable.path.split("/", 1)[1]: value.numpy().reshape(-1).tolist()
        for variable, value in zip(variables, values, strict=True)
    }


if __name__ == "__main__":
    print(json.dumps({name: run(json.loads(sys.argv[1]), **it) for name, it in RUNS.items()}))
