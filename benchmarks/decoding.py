"""How fast the exported GPT-2 124M continues prompts, beside others' and the memory's speed.

Greedy, in float32 but for the export in 8 bits, 32 tokens of a prompt and 64 new ones, random
weights; all that a call does is counted, the pass over the prompt included.
"""

import functools

from benchmarks import Result
from benchmarks.environments import python_of
from benchmarks.exports import exported_gpt2
from benchmarks.processes import Measurement, Worker, take_turns
from benchmarks.workers.decoding_task import NEW_TOKENS
from benchmarks.workers.memory_read import READ_BYTES

# By peer, export and batch: what is claimed.
LIMITS = {
    ("huggingface", "xla", 1): 1.0,
    ("huggingface", "xla", 8): 1.3,
    ("huggingface", "portable", 1): 0.8,
    ("huggingface", "portable", 8): 1.0,
    ("kerashub", "xla", 1): 1.8,
    ("kerashub", "xla", 8): 1.0,
    ("kerashub", "portable", 1): 1.0,
    ("kerashub", "portable", 8): 1.0,
    ("xla", "int8", 1): 1.3,
    ("xla", "int8", 8): 0.5,
}


def compare(peer: str, export: str, batch: int) -> Result:
    """Compares tokens a second; the peer may be another export of ours."""
    ours, others = _measure(batch)[export], _measure(batch)[peer]
    return Result(
        name=f"decode_batch{batch}_{export}_vs_{peer}",
        ours=batch * NEW_TOKENS / ours.seconds,
        peer=batch * NEW_TOKENS / others.seconds,
        limit=LIMITS[peer, export, batch],
        unit="tokens/s",
    )


def one_row_vs_memory_limit() -> Result:
    """Compares bytes of weights a second with those of a loop that only reads.

    The pass over the prompt counts as one reading, which it is not: it is bound by arithmetic.
    """
    ours, reading = _measure(1)["xla"], _measure(1)["memory"]
    return Result(
        name="decode_batch1_xla_vs_memory_limit",
        ours=NEW_TOKENS * READ_BYTES / ours.seconds / 1e9,
        peer=READ_BYTES / reading.seconds / 1e9,
        limit=0.6,
        unit="GB/s",
    )


def int8_vs_float32_limit() -> Result:
    """Compares tokens a second with what reading float32 weights, and nothing else, allows."""
    int8, reading = _measure(1)["int8"], _measure(1)["memory"]
    return Result(
        name="decode_batch1_int8_vs_float32_limit",
        ours=NEW_TOKENS / int8.seconds,
        peer=1 / reading.seconds,
        limit=1.0,
        unit="tokens/s",
    )


@functools.cache
def _measure(batch: int) -> dict[str, Measurement]:
    """Returns what was seen of all in one run; with one row of a memory reader too."""
    ours = {
        export: Worker(["-m", "benchmarks.workers.decode", str(batch), exported_gpt2(export)])
        for export in ("xla", "portable", "int8")
    }
    others = {
        peer: Worker(
            ["-m", f"benchmarks.workers.decode_{peer}", str(batch)],
            python_of(peer),
        )
        for peer in ("huggingface", "kerashub")
    }
    workers = ours | others
    if batch == 1:
        workers["memory"] = Worker(["-m", "benchmarks.workers.memory_read"])
    return dict(zip(workers, take_turns(list(workers.values())), strict=True))
