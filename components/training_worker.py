r"""One of several workers that train together, in a pod of an Indexed Job.

    JOB_COMPLETION_INDEX=1 python -m components.training_worker TASK_FILE \
        --hosts 'gpt2-training-{index}.gpt2-training' --workers 2

waits for its peers, then does what the file says; see `components.training_task`.

The workers live and die together. What was seen of TensorFlow 2.21 when one of three was killed in
the middle of a step: the others' step ended after about 5 seconds with UnavailableError, whether it
was the first worker or another one. One that was frozen instead was missed by the coordination
service's heartbeats after about 12 seconds, one whose network link was cut after 20, and noticed it
itself: UnavailableError or DeadlineExceededError. So nothing watches over the workers here. The
error ends each of them, the Job starts them all anew, and training goes on from the last
checkpoint. Where one was started anew at once, and met peers that were about to end, it waited for
those that came after them.

One that dies when the model is written is started anew by itself, as its peers are done: it finds
that the result is whole, and is done, too.
"""

import argparse
import functools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

from components.trainer import run_fn
from components.training_manifests import BAD_INPUT, STOPPED
from components.training_task import is_whole, read_task
from model.interruption import TrainingInterrupted

_POLL_SECONDS = 0.5
_CONNECT_SECONDS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, and returns what the process ends with; see `components.training_manifests`."""
    options = _parse(arguments)
    # Whatever is no training yet, or no more, can end at once. It has to be said: the first process
    # of a container ignores signals that it has no handler for.
    signal.signal(signal.SIGTERM, _stop)
    try:
        addresses = worker_addresses(options.hosts, options.workers, options.port)
        # What TensorFlow makes its cluster of; it reads the variable when the strategy is made.
        os.environ["TF_CONFIG"] = tf_config(addresses, options.index)
        task = read_task(options.task_file)
        is_done = functools.partial(is_whole, task.model_run_dir)
        wait_for_peers(addresses, options.index, options.wait_seconds, is_done)
        if is_done():
            print("the model is whole: nothing is left to do", file=sys.stderr)
        else:
            run_fn(task)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except TimeoutError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except TrainingInterrupted as stop:
        print(stop, file=sys.stderr)
        return STOPPED
    return 0


def worker_addresses(hosts: str, workers: int, port: int) -> list[str]:
    """Returns `host:port` of each worker.

    Args:
        hosts: The host's name, with `{index}` where the worker's number stands.
        workers: How many there are.
        port: The first one's; each has the next one, so that one host can have several workers.
    """
    return [f"{hosts.replace('{index}', str(each))}:{port + each}" for each in range(workers)]


def tf_config(addresses: Sequence[str], index: int) -> str:
    """Returns the value of TF_CONFIG for the worker with this number. The first is the chief.

    Raises:
        ValueError: There is no worker of that number.
    """
    if not 0 <= index < len(addresses):
        raise ValueError(
            f"JOB_COMPLETION_INDEX must be in [0, {len(addresses)}), the workers' numbers, "
            f"got {index}"
        )
    cluster = {"worker": list(addresses)}
    return json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})


def wait_for_peers(
    addresses: Sequence[str], index: int, seconds: float, is_done: Callable[[], bool]
) -> None:
    """Returns when every other worker has a name and answers on its port, or when all is done.

    TensorFlow would wait for them too, but without a word. For the time being this one answers on
    its own port, until TensorFlow does.

    Raises:
        TimeoutError: Some did not come in time; the message says which.
    """
    missing = {address: "" for number, address in enumerate(addresses) if number != index}
    deadline = time.monotonic() + seconds
    print(f"worker {index} waits for {', '.join(missing)}", file=sys.stderr)
    # Nobody accepts: that the system completes a connection is answer enough.
    with socket.create_server(("", _port(addresses[index])), backlog=len(addresses)):
        while not is_done():
            missing = {
                address: problem for address in missing if (problem := _try_to_reach(address))
            }
            if not missing:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"worker {index} waited {seconds:g} seconds for workers that did not come: "
                    + "; ".join(f"{address} ({problem})" for address, problem in missing.items())
                )
            time.sleep(_POLL_SECONDS)


def _try_to_reach(address: str) -> str:
    """Returns why a worker can't be reached; nothing if it can."""
    host = address.rpartition(":")[0]
    try:
        socket.create_connection((host, _port(address)), timeout=_CONNECT_SECONDS).close()
    except socket.gaierror as error:
        return f"the name is not known: {error.strerror}"
    except OSError as error:
        return f"it does not answer: {error}"
    return ""


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(STOPPED)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m components.training_worker")
    parser.add_argument("task_file")
    parser.add_argument("--hosts", required=True, help="with {index} for the worker's number")
    parser.add_argument("--workers", required=True, type=int)
    parser.add_argument("--port", type=int, default=2222, help="the first worker's")
    parser.add_argument("--wait-seconds", type=float, default=1800)  # nodes may have to be booted
    parser.add_argument(
        "--index",
        type=int,
        default=os.environ.get("JOB_COMPLETION_INDEX"),
        help="this worker's number; JOB_COMPLETION_INDEX, which Kubernetes sets, if not given",
    )
    options = parser.parse_args(arguments)
    if options.index is None:
        parser.error("--index or the variable JOB_COMPLETION_INDEX must be given")
    return options


if __name__ == "__main__":
    sys.exit(main())
