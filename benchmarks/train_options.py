"""What two ways to save memory gain and cost in a step of GPT-2 124M at 4 x 1,024 tokens."""

import functools

from benchmarks import Result
from benchmarks.processes import Measurement, take_turns
from benchmarks.train_step import ours


def chunked_loss_memory() -> Result:
    """Compares peak memory with that of a loss which holds all logits; takes five minutes."""
    return _memory("chunked_loss_memory_vs_plain", 2.0, *_chunked_and_plain_loss())


def chunked_loss_time() -> Result:
    """Compares a whole step's seconds with those of a loss which holds all logits."""
    chunked, plain = _chunked_and_plain_loss()
    return Result(
        name="chunked_loss_time_vs_plain",
        ours=chunked.seconds,
        peer=plain.seconds,
        limit=0.95,
        unit="s",
        more_is_better=False,
    )


def recompute_memory() -> Result:
    """Compares peak memory with that of a step which keeps all activations."""
    recomputed, kept = take_turns([ours(4, 1024, "--recompute"), ours(4, 1024)], rounds=1)
    return _memory("recompute_memory_vs_plain", 1.0, recomputed, kept)


@functools.cache
def _chunked_and_plain_loss() -> tuple[Measurement, Measurement]:
    chunked, plain = take_turns([ours(4, 1024), ours(4, 1024, "--plain-loss")])
    return chunked, plain


def _memory(name: str, limit: float, our_own: Measurement, plain: Measurement) -> Result:
    return Result(
        name=name,
        ours=our_own.peak_bytes / 1e9,
        peer=plain.peak_bytes / 1e9,
        limit=limit,
        unit="GB",
        more_is_better=False,
    )
