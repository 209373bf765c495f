import inspect
import json

import pytest

from benchmarks import Result
from benchmarks import __main__ as command
from benchmarks.environments import PEERS, python_of
from benchmarks.processes import Measurement, Worker, take_turns
from benchmarks.transform_scaling import write_corpus

SEVERAL = (("first", 0.5), ("second", 0.6))

# The library's noise must not come between the answers.
SLEEPER = """
import time
from benchmarks.workers import serve
def step():
    print("noise")
    time.sleep(0.01)
serve(step)
"""

IN_ITS_OWN_KERAS = """
import os
from benchmarks.workers import serve
assert "TF_USE_LEGACY_KERAS" not in os.environ
serve(int)
"""


def test_a_rate_is_better_when_it_is_higher_and_a_cost_when_it_is_lower():
    rate = Result("a", ours=300.0, peer=200.0, limit=1.25, unit="tokens/s")
    cost = Result("b", ours=2.0, peer=5.0, limit=2.0, unit="GB", more_is_better=False)

    assert (rate.ratio, cost.ratio) == (1.5, 2.5)


def test_a_claim_holds_at_its_limit_and_not_below():
    at, below = (
        Result("a", ours=ours, peer=100.0, limit=1.25, unit="tokens/s") for ours in (125.0, 124.9)
    )

    assert at.holds
    assert not below.holds


def test_a_result_takes_the_place_of_an_older_one_and_leaves_the_others(tmp_path):
    path = tmp_path / "output" / "benchmarks.json"
    for name, ours in (("first", 1.0), ("second", 2.0), ("first", 3.0)):
        command.write(path, Result(name, ours, peer=2.0, limit=1.0, unit="s", more_is_better=False))

    second = {"name": "second", "ours": 2.0, "peer": 2.0, "limit": 1.0, "unit": "s", "ratio": 1.0}
    first = {"name": "first", "ours": 3.0, "peer": 2.0, "limit": 1.0, "unit": "s", "ratio": 2 / 3}
    assert json.loads(path.read_text()) == [second, first]


def test_the_table_marks_what_is_below_its_limit():
    table = command.table(
        [
            Result("fast", ours=1_500_000.0, peer=1_000_000.0, limit=1.25, unit="tokens/s"),
            Result("large", ours=4.871, peer=3.664, limit=1.0, unit="GB", more_is_better=False),
        ]
    )

    assert [line.split() for line in table.splitlines()[1:]] == [
        ["fast", "1,500,000", "1,000,000", "tokens/s", "1.50", "1.25"],
        ["large", "4.87", "3.66", "GB", "0.75", "1.00", "below", "its", "limit"],
    ]


@pytest.mark.parametrize(("ours", "status"), [(2.0, 0), (0.5, 1)])
def test_the_command_fails_when_a_claim_does_not_hold(tmp_path, monkeypatch, capsys, ours, status):
    result = Result("claim", ours, peer=1.0, limit=1.0, unit="tokens/s")
    monkeypatch.setattr(command, "BENCHMARKS", {"claim": ("a:b", 1, "x"), "other": ("c:d",)})
    found = {"a:b": lambda *arguments: result if arguments == (1, "x") else None}
    monkeypatch.setattr(command.pkgutil, "resolve_name", found.__getitem__)
    path = tmp_path / "benchmarks.json"

    assert command.main(["--only", "claim", "--output", str(path)]) == status
    assert [entry["name"] for entry in json.loads(path.read_text())] == ["claim"]
    assert "claim" in capsys.readouterr().out


def test_a_benchmark_may_have_several_results(tmp_path, monkeypatch):
    results = [Result(name, 1.0, peer=2.0, limit=limit, unit="s") for name, limit in SEVERAL]
    monkeypatch.setattr(command, "BENCHMARKS", {"claims": ("a:b",)})
    monkeypatch.setattr(command.pkgutil, "resolve_name", lambda name: lambda: results)
    path = tmp_path / "benchmarks.json"

    assert command.main(["--output", str(path)]) == 1  # the second one is below its limit
    assert [entry["name"] for entry in json.loads(path.read_text())] == ["first", "second"]


def test_a_corpus_of_any_size_has_no_document_twice(tmp_path):
    write_corpus(["to be", "or not", "ça ira"], num_bytes=10_000, folder=tmp_path / "texts")

    files = list((tmp_path / "texts").iterdir())
    lines = [line for path in files for line in path.read_text().splitlines()]
    assert 10_000 <= sum(path.stat().st_size for path in files) < 10_000 + 50 * len(files)
    assert len(set(lines)) == len(lines) > 200
    assert json.loads(lines[0]).keys() == {"text", "source"}


def test_every_benchmark_can_be_called():
    for path, *arguments in command.BENCHMARKS.values():
        function = command.pkgutil.resolve_name(path)
        inspect.signature(function).bind(*arguments)


def test_workers_take_turns_and_tell_seconds_and_memory():
    workers = [Worker(["-c", SLEEPER]), Worker(["-c", SLEEPER])]

    measurements = take_turns(workers, rounds=3)

    assert len(measurements) == 2
    for measurement in measurements:
        assert 0.01 <= measurement.seconds < 1  # nothing takes a second here but a broken clock
        assert 1e6 < measurement.peak_bytes < 1e9


def test_the_median_is_taken_of_the_rounds_after_the_warm_up():
    class Script(Worker):
        """Stands in for a worker whose steps take what the list says."""

        def __init__(self, log, name, seconds):
            self.log, self.name, self.seconds = log, name, iter(seconds)

        def step(self):
            self.log.append(self.name)
            return next(self.seconds)

        def peak_bytes(self):
            return 7

        def close(self):
            self.log.append("closed")

    log: list[str] = []
    workers = [Script(log, "a", [90, 90, 3, 1, 2]), Script(log, "b", [90, 90, 8, 5, 60])]

    assert take_turns(workers, rounds=3) == [Measurement(2, 7), Measurement(8, 7)]
    assert log == ["a", "b"] * 5 + ["closed", "closed"]


def test_a_workers_peak_memory_is_its_own_and_rises_with_what_it_holds():
    worker = Worker(
        ["-c", "from benchmarks.workers import serve; serve(lambda: bytearray(b'1') * 300_000_000)"]
    )
    before = worker.peak_bytes()
    worker.step()
    after = worker.peak_bytes()
    worker.close()

    assert before < 100_000_000  # this process, with TensorFlow in it or not, is no part of it
    assert 290_000_000 < after - before < 320_000_000


def test_a_worker_that_ends_is_an_error_that_names_it():
    with pytest.raises(RuntimeError, match=r"no_such_module.*exit status 1"):
        Worker(["-m", "benchmarks.workers.no_such_module"])
    worker = Worker(["-c", "from benchmarks.workers import serve; serve(lambda: exit(3))"])
    with pytest.raises(RuntimeError, match="exit status 3"):
        worker.step()


def test_a_worker_does_not_inherit_transforms_choice_of_keras(monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")  # as TensorFlow Transform does when imported
    Worker(["-c", IN_ITS_OWN_KERAS]).close()


def test_an_environment_with_the_pinned_versions_is_used_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.environments.FOLDER", tmp_path)
    python = tmp_path / "huggingface" / "bin" / "python"
    python.parent.mkdir(parents=True)
    answers = "\n".join(f"  {name}) echo {v}+cpu;;" for name, v in PEERS["huggingface"].items())
    # Called as `python -c CODE PACKAGE`; anything else fails, an installation among it.
    python.write_text(f"#!/bin/sh\ncase $3 in\n{answers}\n  *) exit 9;;\nesac\n")
    python.chmod(0o755)

    assert python_of("huggingface") == str(python)


def test_the_plain_loss_has_the_value_and_the_gradients_of_ours():
    import numpy as np
    import tensorflow as tf

    from benchmarks.workers.ours import plain_cross_entropy
    from model.loss import summed_cross_entropy

    generator = np.random.default_rng(0)
    hidden = tf.constant(generator.standard_normal([2, 6, 4]), tf.float32)
    embedding = tf.constant(generator.standard_normal([11, 4]), tf.float32)
    targets = tf.constant(generator.integers(11, size=[2, 6]))
    weights = tf.constant(generator.uniform(size=[2, 6]), tf.float32)
    found = []
    for loss in (plain_cross_entropy, summed_cross_entropy):
        with tf.GradientTape() as tape:
            tape.watch([hidden, embedding])
            value = loss(hidden, embedding, targets, weights)
        found.append([value, *tape.gradient(value, [hidden, embedding])])

    for plain, chunked in zip(*found, strict=True):
        np.testing.assert_allclose(plain, chunked, rtol=1e-5, atol=1e-6)


def test_peers_workers_import_nothing_of_ours():
    for peer in PEERS:
        source = command.Path(f"benchmarks/workers/{peer}.py").read_text()
        for package in ("components", "data", "model", "pipeline", "serving"):
            assert f"from {package}" not in source
            assert f"import {package}" not in source
