"""model/strategy.py, and that every strategy trains alike: each in processes of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model.strategy import Workers, is_chief, make_strategy, num_physical_devices
from model.training_config import StrategyConfig
from tests.small_training import ROOT, metrics, results, start, train_small, workers

PLAIN: dict[str, Any] = {"xla": True, "dropout": 0.0}
DROPOUT: dict[str, Any] = {"xla": False, "dropout": 0.2}
ALIKE: dict[str, Any] = {"xla": False, "all_rows_alike": True, "steps": 1, "warmup_steps": 0}

RETURNING = {"TF_CPU_ALLOCATOR_USE_BFC": "0"}
SHOW_MEMORY = """
import tensorflow as tf
from model.strategy import make_strategy
from model.training_config import StrategyConfig
make_strategy(StrategyConfig())
four_mebibytes = tf.zeros([1024, 1024])
print(tf.config.experimental.get_memory_info("CPU:0")["current"])
"""


@pytest.fixture(scope="module")
def one_device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one_device")
    train_small(folder, **PLAIN)
    return folder


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on two logical CPUs: `plain`, `dropout`, and on rows alike without and with dropout."""
    folder = tmp_path_factory.mktemp("mirrored")
    runs: dict[str, dict[str, Any]] = {
        "plain": PLAIN,
        "dropout": DROPOUT,
        "alike": ALIKE | {"global_batch_size": 2},
        "alike_dropout": ALIKE | {"global_batch_size": 2, "dropout": 0.5},
    }
    strategy = {"name": "mirrored", "num_devices": 2, "device": "cpu"}
    process = start(
        [run | {"folder": str(folder / name), "strategy": strategy} for name, run in runs.items()]
    )
    assert all("error" not in result for result in results(process))
    return folder


@pytest.fixture(scope="module")
def two_workers(one_device: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on two workers: `plain`, `dropout` and `resumed`, one device's run from step 9 on."""
    folder = tmp_path_factory.mktemp("two_workers")
    shutil.copytree(one_device, folder / "resumed")
    shutil.rmtree(folder / "resumed" / "checkpoints" / "step-000010")
    shutil.copytree(folder / "resumed", folder / "apart-0")
    runs: list[dict[str, Any]] = [
        {"folder": str(folder / "indivisible"), "global_batch_size": 3},
        {"folder": str(folder / "apart-{worker}")},
        {"folder": str(folder / "plain"), **PLAIN},
        {"folder": str(folder / "dropout"), **DROPOUT, "load_best_at_end": True},
        {"folder": str(folder / "resumed"), **PLAIN, "xla": False},
    ]
    runs = [run | {"strategy": {"name": "multi_worker"}} for run in runs]
    with workers(runs, count=2) as processes:
        outcomes = [results(process) for process in processes]
    (folder / "outcomes.json").write_text(json.dumps(outcomes))
    return folder


def assert_alike(folder: Path, other: Path) -> None:
    records, others = metrics(folder), metrics(other)
    assert [record["step"] for record in records] == list(range(1, 11))
    assert records == [
        {name: pytest.approx(value, rel=1e-5) for name, value in record.items()}
        for record in others
    ]


def optimizer_state(folder: Path) -> dict[str, np.ndarray]:
    """AdamW's means of the gradients and of their squares after the last step."""
    reader = tf.train.load_checkpoint(str(folder / "checkpoints" / "step-000010" / "state"))
    return {
        name: reader.get_tensor(name)
        for name, shape in reader.get_variable_to_shape_map().items()
        if name.startswith("optimizer/_variables/") and shape
    }


def assert_same_optimizer_state(folder: Path, other: Path) -> None:
    # It says more than the losses: AdamW's updates would stay if all gradients were doubled.
    found, expected = optimizer_state(folder), optimizer_state(other)
    assert len(expected) == 2 * 16  # for each of the model's weights
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        largest = np.abs(values).max()
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-3 * largest, err_msg=name)


def test_two_replicas_train_as_one_device_does(one_device, mirrored):
    assert_alike(mirrored / "plain", one_device)
    assert_same_optimizer_state(mirrored / "plain", one_device)


def test_two_workers_train_as_one_device_does(one_device, two_workers):
    assert_alike(two_workers / "plain", one_device)
    assert_same_optimizer_state(two_workers / "plain", one_device)


def test_two_workers_train_as_two_replicas_do_with_dropout_too(mirrored, two_workers):
    assert_alike(two_workers / "dropout", mirrored / "dropout")


def test_two_workers_go_on_from_one_devices_checkpoint(one_device, two_workers):
    assert_alike(two_workers / "resumed", one_device)


def test_both_workers_have_the_same_result(two_workers):
    first, second = json.loads((two_workers / "outcomes.json").read_text())
    assert first[-3:] == second[-3:]  # of the runs that were no errors
    last = metrics(two_workers / "plain")[-1]
    assert first[-3]["eval_loss"] == last["eval_loss"]
    assert first[-3]["tokens_seen"] == last["tokens"]
    best = json.loads((two_workers / "dropout" / "checkpoints" / "best.json").read_text())
    assert {name: first[-2][name] for name in best} == best


def test_one_worker_alone_writes_the_log(two_workers):
    for name in ("plain", "dropout"):
        assert len(list((two_workers / name / "tensorboard").iterdir())) == 1


def test_a_batch_that_does_not_divide_over_the_workers_is_an_error(two_workers):
    for outcomes in json.loads((two_workers / "outcomes.json").read_text()):
        assert outcomes[0] == {
            "error": "global_batch_size must be a multiple of the 2 replicas "
            "times accumulation_steps=1, got 3"
        }


def test_workers_that_do_not_see_the_same_checkpoints_are_an_error_to_both(two_workers):
    outcomes = json.loads((two_workers / "outcomes.json").read_text())
    for index, (_, outcome, *_) in enumerate(outcomes):
        assert outcome["error"].startswith(
            f"every worker must see the same checkpoints in {two_workers}/apart-{index}/checkpoints"
        )
        assert "are of steps [9, 0] " in outcome["error"]


def test_each_replica_draws_a_dropout_mask_of_its_own(mirrored, tmp_path):
    # All rows are alike: a batch of two on two replicas has the loss of one row on one device,
    # unless the second replica's mask is another one than the first's.
    train_small(tmp_path / "alike", **(ALIKE | {"global_batch_size": 1}))
    (quiet,), (one,) = metrics(mirrored / "alike"), metrics(tmp_path / "alike")
    assert quiet["loss"] == pytest.approx(one["loss"], rel=1e-6)
    train_small(tmp_path / "dropout", **(ALIKE | {"global_batch_size": 1, "dropout": 0.5}))
    (loud,), (one,) = metrics(mirrored / "alike_dropout"), metrics(tmp_path / "dropout")
    assert loud["loss"] != pytest.approx(one["loss"], rel=1e-6)


# --- choosing a strategy ---


def test_the_same_configuration_gets_the_same_strategy():
    assert make_strategy(StrategyConfig()) is make_strategy(StrategyConfig("one_device", 1))
    assert make_strategy(StrategyConfig()).num_replicas_in_sync == 1
    assert is_chief(make_strategy(StrategyConfig()))


@pytest.mark.parametrize(("set_by_user", "keeps"), [({}, True), (RETURNING, False)])
def test_tensorflow_keeps_memory_unless_the_user_has_it_otherwise(set_by_user, keeps):
    unset = {name: value for name, value in os.environ.items() if "BFC" not in name}
    # oneDNN, which TensorFlow turns on by the kind of CPU, always keeps memory.
    unset["TF_ENABLE_ONEDNN_OPTS"] = "0"
    outcome = subprocess.run(
        [sys.executable, "-c", SHOW_MEMORY],
        cwd=ROOT,
        env=unset | set_by_user,
        capture_output=True,
        text=True,
        check=False,
    )
    # TensorFlow counts the memory that it keeps, and knows nothing of what it hands back.
    if keeps:
        assert int(outcome.stdout) >= 2**22, outcome.stderr
    else:
        assert "Allocator stats not available for device 'CPU:0'" in outcome.stderr


def test_a_process_that_is_alone_agrees_with_itself():
    workers = Workers(make_strategy(StrategyConfig()))
    assert workers.is_chief
    assert workers.gather(7) == [7]


@pytest.mark.parametrize(
    ("config", "devices"),
    [
        (StrategyConfig("mirrored", 4, "cpu"), 1),
        (StrategyConfig("mirrored", 4, "gpu"), 4),
        (StrategyConfig("multi_worker"), 4),
    ],
)
def test_logical_cpus_are_pieces_of_one_device(config, devices):
    assert num_physical_devices(config, SimpleNamespace(num_replicas_in_sync=4)) == devices


@pytest.mark.parametrize("value", [None, "", "{}", '{"task": {"type": "worker", "index": 0}}'])
def test_several_workers_without_a_cluster_are_an_error(monkeypatch, value):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if value is not None:
        monkeypatch.setenv("TF_CONFIG", value)
    with pytest.raises(ValueError, match="multi_worker needs the cluster in TF_CONFIG"):
        make_strategy(StrategyConfig("multi_worker"))


def test_logical_cpus_after_tensorflows_start_are_an_error_that_says_so():
    started_with = len(tf.config.list_logical_devices("CPU"))  # and it starts, if it has not
    with pytest.raises(RuntimeError) as error:
        make_strategy(StrategyConfig("mirrored", 1000, "cpu"))
    assert str(error.value) == (
        "strategy mirrored needs 1000 logical CPUs, but TensorFlow has already started "
        f"with {started_with}: make the strategy first"
    )


def test_more_gpus_than_there_are_is_an_error_that_says_how_many():
    found = len(tf.config.list_physical_devices("GPU"))
    message = (
        f"strategy mirrored needs num_devices=1000 GPUs, found {found}; "
        "device=cpu runs it on the CPU"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_strategy(StrategyConfig("mirrored", 1000))


@pytest.mark.parametrize(
    ("task_type", "task_id", "chief"),
    [("chief", 0, True), ("worker", 0, False), ("worker", 1, False)],
)
def test_where_the_cluster_names_a_chief_it_alone_is_it(monkeypatch, task_type, task_id, chief):
    config = {
        "cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]},
        "task": {"type": task_type, "index": task_id},
    }
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    assert is_chief(SimpleNamespace(cluster_resolver=resolver)) is chief


@pytest.mark.parametrize(("task_id", "chief"), [(0, True), (1, False)])
def test_where_it_names_none_the_first_worker_is_the_chief(monkeypatch, task_id, chief):
    config = {
        "cluster": {"worker": ["b:1", "c:1"]},
        "task": {"type": "worker", "index": task_id},
    }
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    assert is_chief(SimpleNamespace(cluster_resolver=resolver)) is chief
