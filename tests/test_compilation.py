"""model/compilation.py: what is compiled, when, and that it computes the same."""

import pytest
import tensorflow as tf

from model.compilation import compilation_of, compiled, has_matrix_unit
from model.training_config import TrainingConfig


@pytest.mark.parametrize(
    ("precision", "xla", "has_gpu", "has_unit", "expected"),
    [
        ("mixed_bfloat16", True, False, True, "around_products"),
        ("mixed_bfloat16", True, False, False, "whole"),
        ("mixed_bfloat16", True, True, True, "whole"),
        ("mixed_bfloat16", False, False, True, "none"),
        ("mixed_float16", True, False, True, "whole"),
        ("float32", True, False, True, "whole"),
        ("float32", False, False, True, "none"),
    ],
)
def test_products_are_left_to_a_matrix_unit_for_bfloat16(
    precision, xla, has_gpu, has_unit, expected, monkeypatch
):
    devices = {"GPU": ["a GPU"] if has_gpu else []}
    monkeypatch.setattr(tf.config, "list_physical_devices", devices.__getitem__)
    monkeypatch.setattr("model.compilation.has_matrix_unit", lambda: has_unit)
    config = TrainingConfig(steps=1, warmup_steps=0, precision=precision, xla=xla)
    assert compilation_of(config) == expected


def test_a_cpu_has_a_matrix_unit_where_linux_says_so(tmp_path, monkeypatch):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    new, old = tmp_path / "new", tmp_path / "old"
    new.write_text("model name\t: A\nflags\t\t: fpu avx512f amx_bf16 amx_tile\n")
    old.write_text("model name\t: B\nflags\t\t: fpu avx512f avx512_bf16\n")
    assert has_matrix_unit(new)
    assert not has_matrix_unit(old)
    assert not has_matrix_unit(tmp_path / "not_linux")

    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert not has_matrix_unit(new)


def network(x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    for _ in range(3):
        x = tf.nn.gelu(tf.matmul(x, weights) + 0.1, approximate=True) * 1.01 - x
    return tf.nn.softmax(tf.cast(x, tf.float32))


def test_around_products_all_but_the_products_is_for_xla():
    x, weights = tf.ones([4, 8]), tf.ones([8, 8])
    graph = compiled(network, "around_products").get_concrete_function(x, weights).graph
    is_compiled: dict[str, set[bool]] = {}
    for operation in graph.get_operations():
        marked = operation.node_def.attr["_XlaCompile"].b
        is_compiled.setdefault(operation.type, set()).add(marked)
    assert is_compiled["MatMul"] == {False}
    assert is_compiled["Tanh"] == is_compiled["Mul"] == is_compiled["Softmax"] == {True}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_around_products_the_first_call_has_the_bits_of_the_later_ones(dtype):
    # What TensorFlow compiles only when it has been called often would not.
    generator = tf.random.Generator.from_seed(1)
    x, weights = (tf.cast(generator.normal(shape), dtype) for shape in ([64, 32], [32, 32]))
    program = compiled(network, "around_products")
    first, *others = (program(x, weights).numpy() for _ in range(12))
    assert {other.tobytes() for other in others} == {first.tobytes()}
    whole = compiled(network, "whole")(x, weights).numpy()
    assert first == pytest.approx(whole, rel=1e-3 if dtype == "float32" else 0.3)
