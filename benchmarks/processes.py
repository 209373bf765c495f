"""The side that asks the workers: starts them, has them take turns, and takes medians."""

import contextlib
import dataclasses
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
WARM_UPS = 2  # the first step compiles, the second still takes memory for the first time
ROUNDS = 7

# TensorFlow Transform, which some benchmarks import, sets this for all that its process starts;
# KerasHub does not start with it. It means nothing to our own code, which imports `keras`.
_LEGACY_KERAS = "TF_USE_LEGACY_KERAS"


class Worker:
    """A process that does a step whenever it is asked to.

    Args:
        arguments: Python's command line.
        python: Who runs it: a peer's Python, or ours.

    Raises:
        RuntimeError: The process ended, also in any later call; its words are on standard error.
    """

    def __init__(self, arguments: Sequence[str], python: str = sys.executable) -> None:
        self._arguments = arguments
        environment = {name: value for name, value in os.environ.items() if name != _LEGACY_KERAS}
        self._process = subprocess.Popen(
            [python, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"},
        )
        self._read()

    def step(self) -> float:
        """Returns the seconds of one more step."""
        return float(self._ask("step"))

    def peak_bytes(self) -> int:
        """Returns the most memory that the process has held so far."""
        return int(self._ask("peak"))

    def close(self) -> None:
        """Waits for the process to end, which it does when nothing is left to read."""
        self._process.communicate()

    def _ask(self, command: str) -> str:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, as `_read` will notice
            print(command, file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            status = self._process.wait()
            raise RuntimeError(f"worker {self._arguments} ended with exit status {status}")
        return answer


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What was seen of one worker: the median of its steps' seconds, and its peak memory."""

    seconds: float
    peak_bytes: int


def take_turns(workers: Sequence[Worker], rounds: int = ROUNDS) -> list[Measurement]:
    """Returns what was seen of each worker, and closes them.

    In each round every worker does a step, so that a machine that is slow for a while is slow
    for all of them.
    """
    with contextlib.ExitStack() as stack:
        for worker in workers:
            stack.callback(worker.close)
        for _ in range(WARM_UPS):
            for worker in workers:
                worker.step()
        seconds = [[worker.step() for worker in workers] for _ in range(rounds)]
        return [
            Measurement(statistics.median(column), worker.peak_bytes())
            for column, worker in zip(zip(*seconds, strict=True), workers, strict=True)
        ]
