"""How fast a training step of GPT-2 124M is, and what it holds, beside others' and the machine.

In float32 where nothing else is said, with dropout 0.1, random weights and random ids; the step
includes the gradient's clipping by its global norm and AdamW's update.
"""

import functools

from benchmarks import Result
from benchmarks.environments import python_of
from benchmarks.processes import Measurement, Worker, take_turns
from benchmarks.workers.matrix_product import FLOPS_PER_STEP
from model.config import GPT2Config
from model.device_speed import training_flops_per_token


def one_row_vs_huggingface() -> Result:
    """Compares tokens a second at 1 x 512; takes about a minute."""
    return _rate("train_step_1x512_vs_huggingface", "huggingface", 1, 512)


def four_rows_vs_huggingface() -> Result:
    """Compares tokens a second at 4 x 256; takes about two minutes."""
    return _rate("train_step_4x256_vs_huggingface", "huggingface", 4, 256)


def bfloat16_vs_huggingface() -> Result:
    """Compares tokens a second at 4 x 256, both in mixed precision; takes about two minutes."""
    name = "train_step_bfloat16_4x256_vs_huggingface"
    return _rate(name, "huggingface", 4, 256, "--bfloat16")


def one_row_vs_kerashub() -> Result:
    """Compares tokens a second at 1 x 512; takes about a minute."""
    return _rate("train_step_1x512_vs_kerashub", "kerashub", 1, 512)


def four_rows_vs_kerashub() -> Result:
    """Compares tokens a second at 4 x 256; takes about two minutes."""
    return _rate("train_step_4x256_vs_kerashub", "kerashub", 4, 256)


def one_row_vs_matmul_limit() -> Result:
    """Compares the step's FLOPs a second with those of a large matrix product.

    The product is NumPy's or TensorFlow's, whichever is faster here.
    """
    workers = [ours(1, 512)] + [
        Worker(["-m", "benchmarks.workers.matrix_product", library])
        for library in ("numpy", "tensorflow")
    ]
    step, *products = take_turns(workers)
    flops = 512 * training_flops_per_token(GPT2Config(max_length=512))
    return Result(
        name="train_step_1x512_vs_matmul_limit",
        ours=flops / step.seconds / 1e9,
        peer=FLOPS_PER_STEP / min(product.seconds for product in products) / 1e9,
        limit=0.8,
        unit="GFLOP/s",
    )


def memory_vs_huggingface() -> Result:
    """Compares the process's peak memory at 1 x 512."""
    return peak_memory("train_step_memory_vs_huggingface", 1.0, *_measure("huggingface", 1, 512))


def memory_vs_kerashub() -> Result:
    """Compares the process's peak memory at 1 x 512."""
    return peak_memory("train_step_memory_vs_kerashub", 1.0, *_measure("kerashub", 1, 512))


def ours(batch: int, context: int, *options: str) -> Worker:
    """Returns a worker that does our step."""
    return Worker(["-m", "benchmarks.workers.ours", str(batch), str(context), *options])


def peak_memory(name: str, limit: float, our_own: Measurement, others: Measurement) -> Result:
    """Compares two processes' peak memory."""
    return Result(
        name=name,
        ours=our_own.peak_bytes / 1e9,
        peer=others.peak_bytes / 1e9,
        limit=limit,
        unit="GB",
        more_is_better=False,
    )


@functools.cache
def _measure(peer: str, batch: int, context: int, *options: str) -> tuple[Measurement, Measurement]:
    """Returns what was seen of ours and of the peer's step in one run: rates and memory alike."""
    arguments = ["-m", f"benchmarks.workers.{peer}", str(batch), str(context), *options]
    our_own, others = take_turns(
        [ours(batch, context, *options), Worker(arguments, python_of(peer))]
    )
    return our_own, others


def _rate(name: str, peer: str, batch: int, context: int, *options: str) -> Result:
    our_own, others = _measure(peer, batch, context, *options)
    return Result(
        name=name,
        ours=batch * context / our_own.seconds,
        peer=batch * context / others.seconds,
        limit=1.25,
        unit="tokens/s",
    )
