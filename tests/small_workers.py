"""Workers of a training Job as processes on this machine, started anew as the Job would do it."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.small_examples import write_examples

ROOT = Path(__file__).parents[1]
TIMEOUT = 300  # seconds; a tenth of it is enough on an idle machine
SIZES: dict[str, Any] = {
    "vocab_size": 50257,
    "max_length": 6,
    "embedding_dim": 4,
    "num_layers": 1,
    "num_heads": 2,
    "feed_forward_dim": 8,
    "dropout": 0.0,  # each replica would draw masks of its own
}
TRAINING: dict[str, Any] = {
    "steps": 12,
    "global_batch_size": 4,
    "learning_rate": 1e-2,
    "warmup_steps": 0,
    "eval_every_steps": 5,
    "eval_batches": 1,
    "checkpoint_every_steps": 3,
    "xla": False,
    "strategy": {"name": "multi_worker"},
}
END = 50256


def write_task(folder: Path, **changes: Any) -> Path:
    """Writes what the workers are to do: a small training, whose outputs lie in the folder too."""
    documents = [[(7 * row + 3 * place) % 50 for place in range(9)] + [END] for row in range(12)]
    files = write_examples(folder / "examples" / "part-0.tfrecord", documents)
    settings = {
        "model": SIZES,
        "training": TRAINING | changes,
        "stride": 6,
        "xla": False,
        "int8": False,
        "start": "scratch",
        "serving_folder": str(folder / "serving"),
        "checkpoints": str(folder / "checkpoints"),
    }
    task = {
        "custom_config": settings,
        "train_files": [files],
        "eval_files": [files],
        "serving_model_dir": str(folder / "model"),
        "model_run_dir": str(folder / "model_run"),
    }
    file = folder / "task.json"
    file.write_text(json.dumps(task))
    return file


def free_port(count: int) -> int:
    """The first of `count` neighbouring ports that nobody listens on.

    Linux gives none below 32768 to who asks for any, so that they are free until they are used; and
    processes whose numbers are neighbours, as two of pytest's are, begin 100 ports apart.
    """
    for port in range(20000 + 100 * os.getpid() % 10000, 32000, count):
        try:
            for each in range(port, port + count):
                socket.create_server(("", each)).close()
        except OSError:
            continue
        return port
    raise AssertionError("no ports are free")


def free_addresses(count: int) -> list[str]:
    """Addresses on this machine at which nobody listens."""
    port = free_port(count)
    return [f"127.0.0.1:{port + index}" for index in range(count)]


class SmallWorkers:
    """A training Job's workers. Each has its output in a file, `worker-<index>.<attempt>.txt`."""

    def __init__(self, folder: Path, task_file: Path, count: int) -> None:
        self._folder = folder
        self._task_file = task_file
        self._port = free_port(count)
        self._attempts = [0] * count
        self.processes: list[subprocess.Popen[bytes]] = []

    def output(self, index: int) -> str:
        """What a worker's newest process has written."""
        return self._output_file(index).read_text(errors="replace")

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Waits while all of them live."""
        deadline = time.monotonic() + TIMEOUT
        while not is_so():
            assert time.monotonic() < deadline, self.output(0)[-5000:]
            for index, process in enumerate(self.processes):
                assert process.poll() is None, self.output(index)[-5000:]
            time.sleep(0.005)

    def run_to_the_end(self, restarts: int) -> list[tuple[int, int]]:
        """Starts each worker that failed anew, by itself and at once, until all have ended well.

        Returns the number of each that failed, and what it ended with, in order.
        """
        deadline = time.monotonic() + TIMEOUT
        failures: list[tuple[int, int]] = []
        while any(process.poll() != 0 for process in self.processes):
            assert time.monotonic() < deadline, self.output(0)[-5000:]
            for index, process in enumerate(self.processes):
                if process.poll():
                    failures.append((index, process.returncode))
                    assert len(failures) <= restarts, self.output(index)[-5000:]
                    self.start(index)
            time.sleep(0.05)
        return failures

    def start(self, index: int) -> None:
        """Starts a worker that has ended anew."""
        self.processes[index] = self._start(index)

    def __enter__(self) -> "SmallWorkers":
        self.processes = [self._start(index) for index in range(len(self._attempts))]
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def _start(self, index: int) -> subprocess.Popen[bytes]:
        self._attempts[index] += 1
        command = [sys.executable, "-m", "components.training_worker", str(self._task_file)]
        command += ["--hosts=127.0.0.1", f"--workers={len(self._attempts)}"]
        command += [f"--port={self._port}", f"--wait-seconds={TIMEOUT}"]
        environment = {
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "1",
            "JOB_COMPLETION_INDEX": str(index),
        }
        with self._output_file(index).open("wb") as output:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _output_file(self, index: int) -> Path:
        return self._folder / f"worker-{index}.{self._attempts[index]}.txt"
