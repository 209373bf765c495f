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
    makes them on the CPU's matrix unit (AMX) where there is one, five times as fast. Held to
    AVX-512's instructions for bfloat16 it took longer than XLA on the same CPU, and longer still
    without these.
    """
    if not config.xla:
        return "none"
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    by_unit = config.precision == "mixed_bfloat16" and not has_gpu and has_bfloat16_unit()
    return "around_products" if by_unit else "whole"


def has_bfloat16_unit(cpu_info: Path = Path("/proc/cpuinfo")) -> bool:
    """Returns whether this CPU has AMX for bfloat16 and TensorFlow may use it; False off Linux.

    TensorFlow does by oneDNN, which TF_ENABLE_ONEDNN_OPTS can turn off.

    Args:
        cpu_info: What Linux says of the CPU.
    """
    is_off = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower() in ("0", "false")
    return not is_off and cpu_info.exists() and "amx_bf16" in cpu_info.read_text().split()


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
