"""model/throughput.py."""

import pytest

from model.throughput import Throughput


def test_tokens_and_seconds_are_averaged_without_the_first_step():
    throughput = Throughput(flops_per_token=2.0, peak_flops=80.0)
    throughput.add(1000, 50.0)
    assert (throughput.tokens_per_second, throughput.model_flop_utilisation) == (0, 0)
    throughput.add(10, 1.0)
    assert throughput.tokens_per_second == 10
    throughput.add(30, 1.0)
    assert throughput.tokens_per_second == 20
    # 20 tokens of 2 operations a second, out of 80.
    assert throughput.model_flop_utilisation == pytest.approx(0.5)


def test_only_the_last_fifty_steps_count():
    throughput = Throughput(1.0, 1.0)
    for _ in range(11):
        throughput.add(7, 1.0)
    for _ in range(50):
        throughput.add(40, 2.0)
    assert throughput.tokens_per_second == pytest.approx(20)
