"""model/device_speed.py: literal counts, made-up clocks, and the system's own figures."""

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model import device_speed
from model.config import GPT2Config
from model.device_speed import (
    PeakMemory,
    measure_matmul_rate,
    peak_memory_bytes,
    training_flops_per_token,
)


def test_flops_of_a_tiny_gpt2_are_those_counted_by_hand():
    config = GPT2Config(
        vocab_size=10, max_length=5, embedding_dim=4, num_layers=2, num_heads=2, feed_forward_dim=7
    )
    # A block: query, key and value 4 x 12, output 4 x 4, feed-forward 4 x 7 and 7 x 4: 120.
    # Two blocks and the projection to 10 tokens (4 x 10): 280 parameters, 6 FLOPs each: 1,680.
    # Attention forward, a layer: 5 scores and 5 values, each 4 products and 4 sums: 80. Backward
    # twice as much: 240, two layers: 480.
    assert training_flops_per_token(config) == 2160.0


def test_flops_of_gpt2_small_are_those_counted_by_hand():
    # 12 blocks of 7,077,888 parameters and 50,257 x 768, 6 FLOPs each; 12 * 12 * 768 * 1,024.
    assert training_flops_per_token(GPT2Config()) == 6 * 123_532_032 + 113_246_208


def test_the_share_of_heads_in_the_width_and_dropout_change_no_flops():
    assert training_flops_per_token(GPT2Config(num_heads=3, dropout=0.0)) == 854_438_400.0


@pytest.mark.parametrize("tensorflow_is_faster", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_matmul_rate_is_the_flops_of_the_products_by_their_seconds(
    monkeypatch, dtype, tensorflow_is_faster
):
    seen = []
    faster, slower = [9.0, 0.1, 0.5, 0.25, 0.5], [9.0, 0.75, 0.75]  # the first one warms up
    multiply_seconds = iter(faster + slower if tensorflow_is_faster else slower + faster)

    def product_seconds(multiply: Any, left: tf.Tensor, right: tf.Tensor, products: int) -> float:
        seen.append((left.dtype.name, tuple(left.shape), tuple(right.shape), products))
        return next(multiply_seconds)

    monkeypatch.setattr(device_speed, "_product_seconds", product_seconds)
    monkeypatch.setattr(device_speed, "_CPU_SIZE", 100)
    monkeypatch.setattr(device_speed, "_CPU_PRODUCTS", 3)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    # Median of 0.1, 0.5, 0.25 and 0.5 seconds for 3 products of 2 * 100 ** 3 FLOPs.
    assert measure_matmul_rate(dtype) == 3 * 2_000_000 / 0.375
    warm_up = (dtype, (100, 100), (100, 100), 1)
    assert seen.count(warm_up) == 2
    assert set(seen) == {warm_up, (dtype, (100, 100), (100, 100), 3)}
    assert next(multiply_seconds, None) is None


def test_products_are_counted_and_timed_until_their_result_is_there(monkeypatch):
    clock = iter([5.0, 7.5])
    monkeypatch.setattr(device_speed.time, "perf_counter", lambda: next(clock))
    products = []

    def counted(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
        products.append(tf.matmul(left, right))
        return products[-1]

    matrix = tf.constant([[1.0, 1.0], [0.0, 1.0]])
    assert device_speed._product_seconds(counted, matrix, matrix, 3) == 2.5
    assert [product.numpy()[0, 1] for product in products] == [2.0, 3.0, 4.0]


def test_measuring_leaves_the_random_numbers_as_they_were():
    tf.random.set_seed(3)
    expected = tf.random.normal([4]).numpy()
    tf.random.set_seed(3)
    measure_matmul_rate()
    np.testing.assert_array_equal(tf.random.normal([4]).numpy(), expected)


on_linux_without_gpu = pytest.mark.skipif(
    sys.platform != "linux" or bool(tf.config.list_physical_devices("GPU")),
    reason="the test knows the process's memory on Linux, and a GPU's would count instead",
)


@on_linux_without_gpu
def test_peak_memory_is_the_most_that_the_process_has_had():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    in_use = pages * resource.getpagesize()
    before = peak_memory_bytes()
    assert in_use <= before + 2_000_000
    # Surely more than the peak until now. The kernel's figures are exact to a few 100 kB.
    taken = np.ones(before - in_use + 50_000_000, np.uint8)
    after = peak_memory_bytes()
    assert before + 40_000_000 < after < before + 60_000_000
    del taken
    assert peak_memory_bytes() > after - 5_000_000


@on_linux_without_gpu
def test_peak_memory_does_not_count_the_process_that_started_this_one():
    ours = np.ones(300_000_000, np.uint8)
    code = (
        "import sys, types\n"
        "config = types.SimpleNamespace(list_physical_devices=lambda kind: [])\n"
        "sys.modules['tensorflow'] = types.SimpleNamespace(config=config, Tensor=None)\n"
        "from model.device_speed import peak_memory_bytes\n"
        "print(peak_memory_bytes())"
    )
    root = Path(device_speed.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True
    )
    assert 1_000_000 < int(done.stdout) < ours.nbytes / 2


def test_the_logged_peak_never_falls(monkeypatch):
    readings = iter([5_000, 4_000, 6_000])
    monkeypatch.setattr(device_speed, "peak_memory_bytes", lambda: next(readings))
    peak = PeakMemory()
    assert [peak.read() for _ in range(3)] == [5_000, 5_000, 6_000]
