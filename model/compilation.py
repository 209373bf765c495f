"""How much of a training step XLA compiles: nothing, all of it, or what lies between products."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import tensorflow as tf

from model.training_config import TrainingConfig

Compilation = Literal["none", "whole", "around_products"]

# As TensorFlow's graphs name them; one that is not in here would be XLA's.
_PRODUCTS = ("MatMul", "BatchMatMulV2", "BatchMatMulV3")


def compilation_of(config: TrainingConfig) -> Compilation:
    """Returns what suits a configuration and this machine.

    XLA on CPU makes products of bfloat16 in float32. TensorFlow's library for products, oneDNN,
    makes them by the CPU's own instructions for bfloat16, where these are faster.
    """
    if not config.xla:
        return "none"
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    by_onednn = config.precision == "mixed_bfloat16" and not has_gpu and has_fast_bfloat16()
    return "around_products" if by_onednn else "whole"


def has_fast_bfloat16(cpu_info: Path = Path("/proc/cpuinfo")) -> bool:
    """Returns whether this CPU multiplies bfloat16 faster than float32; False off Linux.

    By AMX it does, five times as fast, and AMD's by AVX-512's instructions for it, 1.9 times as
    fast (Zen 4; Zen 5 1.8). Intel's take as long by the latter as in float32: held to them, oneDNN
    was slower than XLA. TF_ENABLE_ONEDNN_OPTS can turn oneDNN off.

    Args:
        cpu_info: What Linux says of the CPU.
    """
    is_off = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower() in ("0", "false")
    if is_off or not cpu_info.exists():
        return False
    words = set(cpu_info.read_text().split())
    return "amx_bf16" in words or {"AuthenticAMD", "avx512_bf16"} <= words


def compiled(
    function: Callable[..., Any], compilation: Compilation, **settings: Any
) -> tf.types.experimental.PolymorphicFunction:
    """Returns the function as a graph, compiled as said.

    Args:
        function: What `tf.function` takes; to be called without keywords.
        compilation: How much of it.
        **settings: More for `tf.function`.
    """
    if compilation != "around_products":
        return tf.function(function, jit_compile=compilation == "whole", **settings)

    @functools.wraps(function)
    def in_scope(*arguments: Any) -> Any:
        with tf.xla.experimental.jit_scope(compile_ops=lambda node: node.op not in _PRODUCTS):
            return function(*arguments)

    return tf.function(in_scope, **settings)
