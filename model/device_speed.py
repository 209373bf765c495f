"""What training is measured by: a device's matrix-product rate, a token's cost, peak memory."""

import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from model.config import GPT2Config

# Large enough that a product's rate no longer grows with it. A GPU is done with one in less
# than a millisecond, so that only many at a time outweigh the wait for the last one's result.
_CPU_SIZE, _CPU_PRODUCTS = 2048, 1
_GPU_SIZE, _GPU_PRODUCTS = 4096, 30
_ROUNDS = 7
_SECONDS = 1.0


def measure_matmul_rate(dtype: str = "float32") -> float:
    """Returns the FLOP/s that TensorFlow's first device reaches in products of square matrices.

    It is measured, never looked up: the median of several rounds, in about a second each for
    TensorFlow's own product and XLA's, of which the faster counts. (On a CPU without a unit for
    bfloat16 that is XLA's, made in float32.) That device is the first GPU, or else the CPU with all
    cores that TensorFlow may use. It changes no state of random numbers. As it runs TensorFlow, a
    strategy that cuts the CPU must be made before it.

    Args:
        dtype: Of the matrices: float32, bfloat16 or float16.
    """
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    size, products = (_GPU_SIZE, _GPU_PRODUCTS) if has_gpu else (_CPU_SIZE, _CPU_PRODUCTS)
    # Entries of variance 1 / size leave a product's entries as large as the factor's, however
    # many products follow each other. Zeros or ones would do, but GPUs run faster on them.
    left, right = (
        tf.cast(tf.random.stateless_normal([size, size], [0, seed], stddev=size**-0.5), dtype)
        for seed in range(2)
    )
    medians = []
    for multiply in (tf.matmul, tf.function(tf.matmul, jit_compile=True)):
        _product_seconds(multiply, left, right, 1)  # it compiles, picks algorithms, takes memory
        seconds: list[float] = []
        while len(seconds) < _ROUNDS and sum(seconds) < _SECONDS:
            seconds.append(_product_seconds(multiply, left, right, products))
        medians.append(statistics.median(seconds))
    return products * 2 * size**3 / min(medians)


def _product_seconds(
    multiply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    left: tf.Tensor,
    right: tf.Tensor,
    products: int,
) -> float:
    """Returns how long it takes to multiply by `right` so many times."""
    begin = time.perf_counter()
    for _ in range(products):
        left = multiply(left, right)
    left[0, 0].numpy()  # waits until all is done
    return time.perf_counter() - begin


def training_flops_per_token(config: GPT2Config) -> float:
    """Returns the FLOPs, forward and backward, that a token of a full context needs.

    6 for each parameter of a matrix that multiplies (2 forward, 4 backward; the tied output
    projection among them, embedding look-ups, biases and normalisations not), and 12 * layers *
    width * context for the products of attention: Chowdhery et al. 2022, "PaLM", appendix B.
    As there, the causal mask halves nothing, and what is computed a second time (recomputation,
    chunked loss) or for padding does not count: utilisation counts what the model needs.
    """
    block = 4 * config.embedding_dim**2 + 2 * config.embedding_dim * config.feed_forward_dim
    matrices = config.num_layers * block + config.vocab_size * config.embedding_dim
    attention = config.num_layers * config.embedding_dim * config.max_length
    return float(6 * matrices + 12 * attention)


class PeakMemory:
    """The largest of its readings of `peak_memory_bytes`: a figure that never falls."""

    def __init__(self) -> None:
        self._bytes = 0

    def read(self) -> int:
        """Returns the most bytes in use at once so far."""
        self._bytes = max(self._bytes, peak_memory_bytes())
        return self._bytes


def peak_memory_bytes() -> int:
    """Returns the most bytes in use at once so far: of the first GPU's, or of this process's.

    Linux knows a process's to some hundred KiB, by which a later call may return less; see
    `PeakMemory`.
    """
    if tf.config.list_physical_devices("GPU"):
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not getrusage: on Linux its figure begins with that of the process which started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return 1024 * int(fields["VmHWM"].removesuffix("kB"))
