"""model/compilation.py: what is compiled, when, and that it computes the same."""

import numpy as np
import pytest
import tensorflow as tf

from model.compilation import compilation_of, compiled, has_fast_bfloat16
from model.loss import summed_cross_entropy
from model.training_config import TrainingConfig
from tests.xla_marks import marked_for_xla


@pytest.mark.parametrize(
    ("precision", "xla", "has_gpu", "is_fast", "expected"),
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
def test_products_of_bfloat16_are_left_to_onednn_where_the_cpu_is_fast_at_them(
    precision, xla, has_gpu, is_fast, expected, monkeypatch
):
    devices = {"GPU": ["a GPU"] if has_gpu else []}
    monkeypatch.setattr(tf.config, "list_physical_devices", devices.__getitem__)
    monkeypatch.setattr("model.compilation.has_fast_bfloat16", lambda: is_fast)
    config = TrainingConfig(steps=1, warmup_steps=0, precision=precision, xla=xla)
    assert compilation_of(config) == expected


@pytest.mark.parametrize(
    ("vendor", "flags", "expected"),
    [
        ("GenuineIntel", "fpu avx512f avx512_bf16 amx_bf16 amx_tile", True),
        ("GenuineIntel", "fpu avx512f avx512_bf16", False),
        ("AuthenticAMD", "fpu avx512f avx512_bf16", True),
        ("AuthenticAMD", "fpu avx512f", False),
    ],
)
def test_which_cpus_are_fast_at_bfloat16(tmp_path, monkeypatch, vendor, flags, expected):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    path = tmp_path / "cpuinfo"
    path.write_text(f"vendor_id\t: {vendor}\nmodel name\t: A\nflags\t\t: {flags}\n")
    assert has_fast_bfloat16(path) == expected
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert not has_fast_bfloat16(path)


def test_where_nothing_tells_of_the_cpu_it_counts_as_slow_at_bfloat16(tmp_path):
    assert not has_fast_bfloat16(tmp_path / "not_linux")


def network(x_BTD: tf.Tensor, weights_DD: tf.Tensor) -> tf.Tensor:
    """Has products of matrices and of batches, and things between; returns gradients too."""
    with tf.GradientTape() as tape:
        tape.watch(x_BTD)
        y_BTD = x_BTD
        for _ in range(3):
            flat = tf.matmul(tf.reshape(y_BTD, [-1, 8]), weights_DD)
            scores_BTT = tf.matmul(y_BTD, tf.reshape(flat, y_BTD.shape), transpose_b=True)
            mixed_BTD = tf.matmul(tf.nn.softmax(scores_BTT), y_BTD)
            y_BTD = tf.nn.gelu(mixed_BTD + 0.1, approximate=True) * 1.01 - y_BTD
    return tf.concat([y_BTD, tape.gradient(y_BTD, x_BTD)], axis=0)


def network_inputs(dtype: str) -> list[tf.Tensor]:
    generator = np.random.default_rng(1)
    return [tf.cast(generator.standard_normal(shape) / 3, dtype) for shape in ([4, 16, 8], [8, 8])]


def test_around_products_all_but_the_products_is_for_xla():
    found = marked_for_xla(compiled(network, "around_products"), *network_inputs("float32"))
    assert found["MatMul"] == found["BatchMatMulV2"] == {False}
    assert found["Tanh"] == found["Softmax"] == found["TanhGrad"] == found["Mul"] == {True}


def chunked_loss(hidden_BTD: tf.Tensor, embedding_VD: tf.Tensor) -> tf.Tensor:
    targets_BT, weights_BT = tf.zeros([4, 16], tf.int32), tf.ones([4, 16])
    with tf.GradientTape() as tape:
        tape.watch([hidden_BTD, embedding_VD])
        loss = summed_cross_entropy(
            hidden_BTD, embedding_VD, targets_BT, weights_BT, 8, compilation="around_products"
        )
    gradients = tape.gradient(loss, [hidden_BTD, embedding_VD])
    return tf.concat([tf.reshape(gradient, [-1, 8]) for gradient in gradients], axis=0)


@pytest.mark.parametrize("function", [network, chunked_loss])
def test_around_products_the_first_call_has_the_bits_of_the_later_ones(function):
    # What TensorFlow compiles only when it has been called often would not.
    program = compiled(function, "around_products")
    first, *others = (program(*network_inputs("bfloat16")).numpy() for _ in range(12))
    assert {other.tobytes() for other in others} == {first.tobytes()}


@pytest.mark.parametrize(("dtype", "share"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_around_products_values_and_gradients_are_those_of_plain_calls(dtype, share):
    found = compiled(network, "around_products")(*network_inputs(dtype))
    expected = network(*network_inputs("float32")).numpy()
    largest = np.abs(expected).max()
    np.testing.assert_allclose(tf.cast(found, tf.float32), expected, rtol=0, atol=share * largest)
