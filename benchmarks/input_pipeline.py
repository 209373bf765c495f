"""How fast transformed examples become batches on the device, on one core.

A process of its own is bound to one core before TensorFlow starts, so that TensorFlow's threads
share it too. It does what a new run does in its first epoch: takes the fingerprint of the files,
parses them, writes and maps the tokens, takes their digest, shuffles, cuts rows, and makes every
batch a tensor on the device. Its peer is no program but what we ask of it, so that it holds back no
GPU.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import Result

REQUIRED = 2_000_000  # tokens/s
NUM_TOKENS = 4_000_000
NUM_FILES = 4
ROUNDS = 3
BATCH_SIZE = 8
# The shorter the rows, the more of them: the slower one counts.
CONTEXTS = (128, 1024)


def run() -> Result:
    """Measures contexts of 128 and 1,024 tokens and gives the slower one; takes half a minute."""
    with tempfile.TemporaryDirectory() as folder:
        _write_examples(Path(folder))
        rates = [_rate_on_one_core(Path(folder), context) for context in CONTEXTS]
    for context, rate in zip(CONTEXTS, rates, strict=True):
        print(f"context {context}: {rate:,.0f} tokens/s", file=sys.stderr)
    return Result(
        name="input_pipeline_tokens_per_second",
        ours=min(rates),
        peer=REQUIRED,
        limit=1.0,
        unit="tokens/s",
    )


def _write_examples(folder: Path) -> None:
    """Writes examples as Transform does: about 1,000 tokens each, some many more."""
    import numpy as np
    import tensorflow as tf

    generator = np.random.default_rng(0)
    # Frequent tokens have small ids, as in GPT-2's vocabulary, by Zipf's law.
    shares = 1 / np.arange(3, 50259)
    tokens = generator.choice(50256, NUM_TOKENS, p=shares / shares.sum())
    lengths = generator.lognormal(np.log(700), 0.85, NUM_TOKENS // 1000)
    documents = np.split(tokens, np.cumsum(lengths.astype(np.int64) + 1))
    for number in range(NUM_FILES):
        path = str(folder / f"transformed_examples-{number}")
        with tf.io.TFRecordWriter(path) as writer:
            for document in documents[number::NUM_FILES]:
                example = tf.train.Example()
                feature = example.features.feature
                feature["input_ids"].int64_list.value.extend([*document.tolist(), 50256])
                feature["num_bytes"].int64_list.value.append(4 * len(document))
                feature["source"].bytes_list.value.append(b"play")
                writer.write(example.SerializeToString())


def _rate_on_one_core(folder: Path, context: int) -> float:
    """Returns tokens a second, the median of several rounds in one process of its own."""
    command = [sys.executable, "-m", "benchmarks.input_pipeline", str(folder), str(context)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return statistics.median(float(line) for line in done.stdout.split())


def _measure(folder: Path, context: int) -> None:
    """Prints the tokens a second of each round, after a short one that starts TensorFlow."""
    from components.transformed_examples import list_files

    files = list_files([f"{folder}/transformed_examples-*"])
    _do_epoch(files[:1], folder / f"{context}-start", context)
    for number in range(ROUNDS):
        begin = time.perf_counter()
        num_tokens = _do_epoch(files, folder / f"{context}-{number}", context)
        print(num_tokens / (time.perf_counter() - begin))


def _do_epoch(files: list[str], folder: Path, context: int) -> int:
    """Makes batches of the files' tokens, each once, and returns how many tokens these are."""
    import tensorflow as tf

    from components.token_files import digest, map_documents
    from components.transformed_examples import fingerprint
    from model.packing import PackedTokens

    fingerprint(files)
    packed = PackedTokens(*map_documents(files, folder), context)
    digest(folder)
    for first in range(0, packed.num_rows, BATCH_SIZE):
        ids, weights = packed.batch(0, first, min(BATCH_SIZE, packed.num_rows - first))
        on_device = tf.constant(ids), tf.constant(weights)
    del on_device
    return packed.num_tokens


if __name__ == "__main__":
    # Threads inherit it, and TensorFlow makes as many as it may use cores.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    _measure(Path(sys.argv[1]), int(sys.argv[2]))
