"""Workers of a training Job as processes on this machine, started anew as the Job would do it."""

import json
import os
import signal
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
    files = write_examples(folder / "examples" / "part-0.gz", documents)
    settings = {
        "model": SIZES,
        "training": TRAINING | changes,
        "stride": 6,
        "xla": False,
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
    """The first of `count` neighbouring ports that nobody listens on."""
    for port in range(20000 + os.getpid() % 10000, 32000, count):
        try:
            for each in range(port, port + count):
                socket.create_server(("", each)).close()
        except OSError:
            continue
        return port
    raise AssertionError("no ports are free")


class SmallWorkers:
    """A training Job's workers. Each has its output in a file, `worker-<index>.<attempt>.txt`."""

    def __init__(self, folder: Path, count: int, *arguments: str) -> None:
        self._folder = folder
        self._count = count
        self._arguments = arguments
        self._attempt = 0
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Starts all of them."""
        self._attempt += 1
        port = free_port(self._count)
        self.processes = [self._start(index, port) for index in range(self._count)]

    def output(self, index: int) -> str:
        """What a worker's newest process has written."""
        return self._output_file(index).read_text(errors="replace")

    def wait(self) -> list[int]:
        """What each ended with."""
        deadline = time.monotonic() + TIMEOUT
        return [
            process.wait(timeout=max(0.1, deadline - time.monotonic()))
            for process in self.processes
        ]

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Waits while all of them live."""
        deadline = time.monotonic() + TIMEOUT
        while not is_so():
            assert time.monotonic() < deadline, self.output(0)[-5000:]
            for index, process in enumerate(self.processes):
                assert process.poll() is None, self.output(index)[-5000:]
            time.sleep(0.005)

    def __enter__(self) -> "SmallWorkers":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def _start(self, index: int, port: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "components.training_worker", *self._arguments]
        command += ["--hosts=127.0.0.1", f"--workers={self._count}", f"--port={port}"]
        command += [f"--wait-seconds={TIMEOUT // 3}"]
        with self._output_file(index).open("wb") as output:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ
                | {
                    "CUDA_VISIBLE_DEVICES": "-1",
                    "TF_CPP_MIN_LOG_LEVEL": "1",
                    "JOB_COMPLETION_INDEX": str(index),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _output_file(self, index: int) -> Path:
        return self._folder / f"worker-{index}.{self._attempt}.txt"
