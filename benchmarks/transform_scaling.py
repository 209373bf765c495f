"""How Transform's time grows with the corpus: 50, 100 and 200 MB, on one worker and on two.

Where it is linear a megabyte of a large corpus takes as long as one of a small corpus; the claim is
that it takes hardly longer. Shakespeare's plays, each copy with a number before its documents so
that no two are the same, go through the pipeline of the configuration `shakespeare` up to
Transform, whose own time alone counts. One worker is Beam's runner in memory, two are processes;
the tokeniser uses all cores in either.
"""

import itertools
import json
import logging
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tfx.orchestration.pipeline import RunOptions

from benchmarks import Result
from benchmarks.transform_throughput import SHAKESPEARE, read_texts, run_seconds
from data.prepare import prepare
from pipeline.config import PipelineConfig
from pipeline.config_file import load_config

SIZES = (50, 100, 200)  # MB, a million bytes each, of JSON lines
WORKERS = {1: "in_memory", 2: "multi_processing"}
ROUNDS = 3
LIMIT = 0.85

# A file is read by one worker: so many files that all have enough to do.
_FILE_BYTES = 5_000_000
_LEAST_FILES = 4


def run(sizes: Sequence[int] = SIZES, rounds: int = ROUNDS) -> list[Result]:
    """Measures all in turn; some 10 minutes on two cores.

    Returns:
        For each number of workers and each size but the first, milliseconds a MB, with those of the
        first size as the peer.
    """
    for library in ("absl", "apache_beam", "tensorflow"):
        logging.getLogger(library).setLevel(logging.ERROR)
    texts = read_texts(prepare("shakespeare", SHAKESPEARE).folder)
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            write_corpus(texts, size * 1_000_000, Path(folder) / f"{size}" / "texts")
        seconds = _measure(Path(folder), sizes, rounds)
    return [
        Result(
            name=f"transform_scaling_{workers}_workers_{size}mb_vs_{sizes[0]}mb",
            ours=1000 * seconds[workers, size] / size,
            peer=1000 * seconds[workers, sizes[0]] / sizes[0],
            limit=LIMIT,
            unit="ms/MB",
            more_is_better=False,
        )
        for workers in WORKERS
        for size in sizes[1:]
    ]


def write_corpus(texts: Sequence[str], num_bytes: int, folder: Path) -> None:
    """Writes JSON lines of documents that all differ, at least so many bytes in all files."""
    folder.mkdir(parents=True)
    lines = (
        json.dumps({"text": f"{copy}. {text}", "source": "play"}) + "\n"
        for copy in itertools.count(1)
        for text in texts
    )
    num_files = max(_LEAST_FILES, round(num_bytes / _FILE_BYTES))
    for number in range(num_files):
        with (folder / f"{number}.jsonl").open("w", encoding="ascii") as file:
            written = 0
            while written < num_bytes / num_files:
                written += file.write(next(lines))


def _measure(folder: Path, sizes: Sequence[int], rounds: int) -> dict[tuple[int, int], float]:
    """Returns Transform's seconds by workers and size, the medians of the rounds."""
    for size in sizes:
        run_seconds(_config(folder, size, 1), RunOptions(to_nodes=["ExampleValidator"]))
    transform = RunOptions(from_nodes=["Transform"], to_nodes=["Transform"])
    run_seconds(_config(folder, sizes[0], 1), transform)  # what only a first time has to do
    runs = list(itertools.product(WORKERS, sizes))
    # In each round every run once, so that a machine that is slow for a while is slow for all.
    seconds: dict[tuple[int, int], list[float]] = {key: [] for key in runs}
    for _ in range(rounds):
        for workers, size in runs:
            found = run_seconds(_config(folder, size, workers), transform)
            print(f"{size} MB on {workers}: {found:.1f} s", file=sys.stderr, flush=True)
            seconds[workers, size].append(found)
    return {key: statistics.median(values) for key, values in seconds.items()}


def _config(folder: Path, size: int, workers: int) -> PipelineConfig:
    return load_config(
        "shakespeare",
        [
            f"data={{path: {folder}/{size}/texts}}",
            f"output={folder}/{size}",
            "cache=false",
            f"beam={{running_mode: {WORKERS[workers]}, workers: {workers}}}",
        ],
    )
