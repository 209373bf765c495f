"""What is measured, each in a process of its own: `python -m benchmarks.workers.NAME ARGUMENTS`.

A worker prints `ready`, then answers each line that it reads by a line with one number:

    step    does one step, answers its seconds
    peak    answers the most memory that the process has ever held, in bytes

and ends when its input does. So several of them stand side by side and take turns, and while one
works the others wait for a line. Peers' workers are run by the peers' Python: this module and
theirs import nothing of ours.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

# GPT-2 small, of which every worker trains one with random weights on random ids.
VOCAB_SIZE = 50257
DROPOUT = 0.1

# To which all that train clip the gradient's global norm, as GPT-3's was (Brown et al. 2020,
# appendix B).
CLIP_NORM = 1.0


def serve(step: Callable[[], object]) -> None:
    """Answers lines until the input ends; `step` returns when all of its work is done."""
    # Libraries print what they like: what is printed from here on goes to standard error.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    print("ready", file=answers)
    for line in sys.stdin:
        command = line.strip()
        if command == "step":
            begin = time.perf_counter()
            step()
            print(time.perf_counter() - begin, file=answers)
        elif command == "peak":
            print(peak_bytes(), file=answers)
        else:
            raise ValueError(f"a worker knows the commands step and peak, got {command!r}")


def peak_bytes() -> int:
    """Returns the largest resident set that this process has had since its program started.

    From Linux' VmHWM. `resource.getrusage` would be more portable, but its figure is handed on
    through exec: a worker would start with the size of the process that started it.
    """
    return memory_bytes("self", "VmHWM")


def memory_bytes(process: int | str, field: str) -> int:
    """Returns a figure that Linux has of a process, in bytes: VmRSS now, VmHWM at most so far.

    Raises:
        OSError: The process has ended, or this is not Linux.
    """
    path = Path(f"/proc/{process}/status")
    for line in path.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{path} has no {field}: the process has ended")
