"""The server under load: clients that ask well, badly, too much or leave, while versions change.

    python -m benchmarks.load [--minutes 10] [--clients 16] [--swap-seconds 30]

Two small models with different weights take turns as the newest version; each answer must be that
of the version that gave it. Prints a table. The exit status is 1 if a valid request failed or was
answered wrongly, another one ended with a code that is not its own, a version was not served, or
the server's memory grew.
"""

import argparse
import collections
import contextlib
import dataclasses
import itertools
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
import keras
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from benchmarks.load_cases import (
    CONTEXT,
    MAX_MESSAGE_BYTES,
    MAX_NEW_TOKENS,
    MAX_ROWS,
    Case,
    make_cases,
)
from benchmarks.server_process import ServerProcess, connect
from model.export import export_gpt2
from model.gpt2 import GPT2

# How often each kind of request is drawn.
WEIGHTS = {"valid": 60, "invalid": 15, "cancelled": 15, "oversized": 10}
TIMEOUT_SECONDS = 180.0  # of those who wait for an answer: a busy machine is no failure
LEAVING_SECONDS = 0.05  # the longest that the others wait
PARTS = 10  # of the run's time, for each of which the memory is told: a minute if it takes ten
KEPT_VERSIONS = 2
TOLD_TROUBLES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load:
    """What is done.

    Args:
        minutes: How long it takes, in minutes.
        clients: Clients that ask all the time, each on a connection of its own.
        swap_seconds: Time between two new versions, in seconds.
        models: Models that take turns.
        max_growth: By how much memory may grow from the third tenth of the time to the last.
    """

    minutes: float = 10.0
    clients: int = 16
    swap_seconds: float = 30.0
    models: int = 2
    max_growth: float = 0.1


@dataclasses.dataclass
class Record:
    """What was seen; clients add to it under its lock.

    Args:
        ends: How many requests of a kind ended with a code.
        troubles: What was wrong, by kind of request.
        swaps: How often a new version took over.
        newest: The newest version that answered.
        memory: The server's resident memory, each second, in bytes.
    """

    ends: collections.Counter[tuple[str, str]] = dataclasses.field(
        default_factory=collections.Counter
    )
    troubles: dict[str, list[str]] = dataclasses.field(
        default_factory=lambda: {kind: [] for kind in (*WEIGHTS, "swap")}
    )
    swaps: int = 0
    newest: int = 0
    memory: list[int] = dataclasses.field(default_factory=list)
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def memory_parts(self) -> list[float]:
        """Returns the median of each tenth of the time, in bytes; a few readings are told again."""
        bounds = [part * len(self.memory) // PARTS for part in range(PARTS + 1)]
        return [
            statistics.median(self.memory[start : max(end, start + 1)])
            for start, end in itertools.pairwise(bounds)
        ]

    def growth(self) -> float:
        """Returns by what part memory grew from the third tenth of the time to the last."""
        parts = self.memory_parts()
        return parts[-1] / parts[2] - 1

    def failures(self, max_growth: float) -> list[str]:
        """Returns what must not be; empty if all is well."""
        found = [f"{kind}: {trouble}" for kind, told in self.troubles.items() for trouble in told]
        if self.growth() > max_growth:
            found.append(f"memory grew by {self.growth():.1%}, allowed is {max_growth:.0%}")
        return found


def run(load: Load, folder: Path) -> Record:
    """Returns what was seen.

    Args:
        load: What is done; it takes longer until a first version took over.
        folder: An empty one for the models, and for what the server tells, in `log`.
    """
    models = [_export(folder / "models" / str(seed), seed) for seed in range(load.models)]
    cases = make_cases(models)
    base = folder / "versions"
    base.mkdir()
    record = Record()
    _push(models, base, 1)
    stopping = threading.Event()
    with (
        ServerProcess(
            base,
            folder / "log",
            max_message_bytes=MAX_MESSAGE_BYTES,
            max_rows=MAX_ROWS,
            max_new_tokens=MAX_NEW_TOKENS,
        ) as server,
        futures.ThreadPoolExecutor(load.clients + 2) as threads,
    ):
        jobs = [
            threads.submit(_watch_memory, server, record, stopping),
            threads.submit(_push_versions, models, base, load.swap_seconds, record, stopping),
            *(
                threads.submit(_ask_all_the_time, server.address, cases, seed, record, stopping)
                for seed in range(load.clients)
            ),
        ]
        futures.wait(jobs, 60 * load.minutes, futures.FIRST_COMPLETED)  # none does unless it fails
        while record.swaps == 0 and not any(job.done() for job in jobs):
            time.sleep(0.1)
        stopping.set()
        for job in jobs:
            job.result()
    return record


def _export(folder: Path, seed: int) -> Path:
    """Writes a model that answers within milliseconds, and says something else for each seed."""
    keras.utils.set_random_seed(seed)
    model = GPT2(
        max_length=CONTEXT, embedding_dim=16, num_layers=2, num_heads=2, feed_forward_dim=32
    )
    model.build((None, CONTEXT))
    export_gpt2(model, folder, stride=CONTEXT // 2, warm_up_prompts=["To be", "Now is"])
    return folder


def _push_versions(
    models: list[Path], base: Path, seconds: float, record: Record, stopping: threading.Event
) -> None:
    """Pushes versions; each of them must answer before the next one comes."""
    pushed = time.monotonic()
    for version in itertools.count(2):
        if stopping.wait(max(pushed + seconds - time.monotonic(), 0.0)):
            return
        pushed = time.monotonic()
        _push(models, base, version)
        while record.newest < version:
            if stopping.wait(0.1):
                return
            if time.monotonic() > pushed + TIMEOUT_SECONDS:
                record.troubles["swap"].append(f"version {version} did not answer in time")
                return
        record.swaps += 1


def _push(models: list[Path], base: Path, version: int) -> None:
    """Puts a version in place at once, as the pipeline does, and deletes the oldest one."""
    staged = base / f".staged-{version}"
    shutil.copytree(models[version % len(models)], staged)
    staged.rename(base / str(version))
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(base / str(version - KEPT_VERSIONS))


def _watch_memory(server: ServerProcess, record: Record, stopping: threading.Event) -> None:
    while True:
        record.memory.append(server.resident_bytes())
        if stopping.wait(1.0):
            return


def _ask_all_the_time(
    address: str, cases: list[Case], seed: int, record: Record, stopping: threading.Event
) -> None:
    draw = random.Random(seed)
    by_kind = {kind: [case for case in cases if case.kind == kind] for kind in WEIGHTS}
    channel, stub = connect(address)
    with channel:
        while not stopping.is_set():
            (kind,) = draw.choices(list(WEIGHTS), list(WEIGHTS.values()))
            _ask(stub, draw.choice(by_kind[kind]), draw, record)


def _ask(stub: PredictionServiceStub, case: Case, draw: random.Random, record: Record) -> None:
    patience = draw.uniform(0.001, LEAVING_SECONDS)
    call = stub.Predict.future(
        case.request, timeout=patience if case.leaves == "deadline" else TIMEOUT_SECONDS
    )
    if case.leaves == "cancel":
        time.sleep(patience)
        call.cancel()
    code = call.code()  # waits for the end
    response = call.result() if code == grpc.StatusCode.OK else None
    trouble = case.trouble(code, call.details(), response)
    with record.lock:
        record.ends[case.kind, code.name] += 1
        if trouble:
            record.troubles[case.kind].append(trouble)
        if response is not None and case.kind == "valid":
            record.newest = max(record.newest, response.model_spec.version.value)


def table(record: Record) -> str:
    """Returns what was seen, in lines."""
    lines = []
    for kind in WEIGHTS:
        ends = {code: count for (of, code), count in sorted(record.ends.items()) if of == kind}
        listed = ", ".join(f"{code} {count:,}" for code, count in ends.items())
        lines.append(f"{kind:<12}{sum(ends.values()):>9,}  {listed}")
    wrong = sum(len(record.troubles[kind]) for kind in WEIGHTS if kind != "valid")
    memory = " ".join(f"{part / 2**20:.0f}" for part in record.memory_parts())
    return "\n".join(
        [
            *lines,
            f"valid requests that failed      {len(record.troubles['valid'])}",
            f"others with a wrong code        {wrong}",
            f"swaps                           {record.swaps}",
            f"memory in tenths of the time    {memory} MiB",
            f"growth from the third           {record.growth():+.1%}",
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the load; returns 1 if something was not as it must be, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    for field in dataclasses.fields(Load):
        parser.add_argument(
            "--" + field.name.replace("_", "-"), type=field.type, default=field.default
        )
    load = Load(**vars(parser.parse_args(arguments)))
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        record = run(load, Path(folder))
    failures = record.failures(load.max_growth)
    print("\n".join([table(record), *failures[:TOLD_TROUBLES]]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
