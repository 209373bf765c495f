"""What options of a training step gain and cost, each beside a step without it: GPT-2 124M."""

import functools

from benchmarks import Result
from benchmarks.processes import Measurement, take_turns
from benchmarks.train_step import ours, peak_memory
from model.compilation import has_fast_bfloat16


def chunked_loss_memory() -> list[Result]:
    """Compares peak memory at 4 x 1,024 with that of a loss which holds all logits.

    Once more with blocks recomputed in both, where activations hide less of the difference.
    """

    def compare(name: str, limit: float, *options: str) -> Result:
        workers = [ours(4, 1024, *options), ours(4, 1024, "--plain-loss", *options)]
        chunked, plain = take_turns(workers, rounds=1)
        return peak_memory(name, limit, chunked, plain)

    return [
        compare("chunked_loss_memory_vs_plain", 2.0),
        compare("chunked_loss_memory_recomputing_vs_plain", 1.6, "--recompute", "block"),
    ]


def chunked_loss_time() -> Result:
    """Compares a step's seconds at 1 x 1,024 with those of a loss which holds all logits."""
    chunked, plain = take_turns([ours(1, 1024), ours(1, 1024, "--plain-loss")])
    return _time("chunked_loss_time_vs_plain", 0.95, chunked, plain)


def recompute_memory() -> list[Result]:
    """Compares peak memory at 4 x 1,024 with that of a step that recomputes nothing."""
    block, attention, plain = _recomputed_and_kept()
    return [
        peak_memory("recompute_memory_vs_plain", 1.0, block, plain),
        peak_memory("recompute_attention_memory_vs_plain", 1.0, attention, plain),
    ]


def recompute_time() -> list[Result]:
    """Compares a step's seconds at 4 x 1,024 with those of one that recomputes nothing.

    A forward pass more, of one and a backward pass of two, would make it 0.75 for blocks.
    """
    block, attention, plain = _recomputed_and_kept()
    return [
        _time("recompute_time_vs_plain", 0.7, block, plain),
        _time("recompute_attention_time_vs_plain", 0.9, attention, plain),
    ]


def document_mask_time() -> Result:
    """Compares a step's seconds at 1 x 1,024 with those of one whose rows are not cut."""
    masked, plain = take_turns([ours(1, 1024, "--document-mask"), ours(1, 1024)])
    return _time("document_mask_time_vs_plain", 1 / 1.1, masked, plain)


def average_time() -> list[Result]:
    """Compares a step at 1 x 512 that keeps an average of the weights with one that does not."""
    average, plain = take_turns([ours(1, 512, "--average"), ours(1, 512)])
    return [
        _time("average_time_vs_plain", 0.95, average, plain),
        peak_memory("average_memory_vs_plain", 0.8, average, plain),
    ]


def xla_time() -> Result:
    """Compares a step's seconds at 1 x 512 with those of one that is not compiled."""
    compiled, plain = take_turns([ours(1, 512), ours(1, 512, "--no-xla")])
    return _time("xla_time_vs_plain", 1.0, compiled, plain)


def bfloat16_time() -> Result:
    """Compares a step's seconds at 4 x 256 in `mixed_bfloat16` with those of one in float32.

    Where the CPU is no faster at it XLA makes the products in float32 all the same.
    """
    in_16_bits, plain = take_turns([ours(4, 256, "--bfloat16"), ours(4, 256)])
    limit = 1.5 if has_fast_bfloat16() else 0.75
    return _time("bfloat16_time_vs_float32", limit, in_16_bits, plain)


def kept_memory() -> list[Result]:
    """Compares a step at 4 x 256 with one that hands the memory it frees back to the system.

    Where TensorFlow turns oneDNN on, neither of them does: the two are alike then.
    """
    kept, returned = take_turns([ours(4, 256), ours(4, 256, "--return-memory")])
    return [
        _time("kept_memory_time_vs_returned", 1.0, kept, returned),
        peak_memory("kept_memory_memory_vs_returned", 0.9, kept, returned),
    ]


@functools.cache
def _recomputed_and_kept() -> tuple[Measurement, Measurement, Measurement]:
    """Returns what was seen of steps that recompute blocks, attention, and neither."""
    parts = ("block", "attention", "none")
    block, attention, plain = take_turns(
        [ours(4, 1024, "--recompute", part) for part in parts], rounds=5
    )
    return block, attention, plain


def _time(name: str, limit: float, our_own: Measurement, plain: Measurement) -> Result:
    return Result(
        name=name,
        ours=our_own.seconds,
        peer=plain.seconds,
        limit=limit,
        unit="s",
        more_is_better=False,
    )
