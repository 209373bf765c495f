"""The Trainer with `job` in its configuration: a Job on Kubernetes, which a server plays, does all.

What such a Job's workers do for real is tested in test_training_worker.py.
"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.config import incluster_config, kube_config

from components import kubernetes_api
from components.kubernetes_api import connect
from components.trainer import run_fn
from components.training_task import read_task
from model.interruption import TrainingInterrupted
from tests.small_examples import write_examples
from tests.small_kubernetes import SmallKubernetes, end, small_kubernetes, use_cluster


@pytest.fixture
def cluster() -> Iterator[SmallKubernetes]:
    with small_kubernetes() as cluster:
        yield cluster


SETTINGS: dict[str, Any] = {
    "model": {"num_layers": 1, "num_heads": 2, "embedding_dim": 4, "max_length": 6},
    "training": {
        "steps": 2,
        "global_batch_size": 4,
        "warmup_steps": 0,
        "strategy": {"name": "multi_worker"},
    },
    "stride": 6,
    "xla": False,
    "int8": False,
    "start": "scratch",
}


def arguments(folder: Path, **settings: Any) -> SimpleNamespace:
    """TFX's FnArgs; the volume is `folder/volume`."""
    (folder / "volume").mkdir(exist_ok=True)
    for split in ("train", "eval"):
        write_examples(folder / "examples" / split / "part-0.tfrecord", [[1, 2, 50256]])
    job = {"image": "registry/gpt2:1", "volume": "claim", "mount_path": str(folder / "volume")}
    defaults = {
        "job": job,
        "serving_folder": str(folder / "serving"),
        "checkpoints": str(folder / "volume" / "checkpoints"),
    }
    return SimpleNamespace(
        custom_config=SETTINGS | defaults | settings,
        train_files=[str(folder / "examples" / "train" / "*")],
        eval_files=[str(folder / "examples" / "eval" / "*")],
        serving_model_dir=str(folder / "outputs" / "model" / "7"),
        model_run_dir=str(folder / "outputs" / "model_run" / "7"),
    )


@pytest.fixture
def kubeconfig(cluster, tmp_path, monkeypatch) -> None:
    use_cluster(cluster, tmp_path / "kubeconfig", monkeypatch)


def train_as_worker(job: dict[str, Any]) -> Any:
    """Writes what the chief would, completes the Job and returns the task."""
    task = read_task(job["spec"]["template"]["spec"]["containers"][0]["args"][0])
    outputs = ((task.serving_model_dir, "saved_model.pb"), (task.model_run_dir, "training.json"))
    for folder, name in outputs:
        Path(folder).mkdir(parents=True)
        Path(folder, name).write_text('{"it": 1}')
    end(job, "Complete")
    return task


@pytest.mark.usefixtures("kubeconfig")
def test_the_trainer_hands_its_inputs_to_a_job_and_fetches_the_outputs(cluster, tmp_path):
    fn_args = arguments(tmp_path)
    tasks: list[Any] = []

    def happen(job: dict[str, Any]) -> None:
        task = train_as_worker(job)
        tasks.append(task)
        # The workers see nothing but the volume.
        for file in [*task.train_files, *task.eval_files]:
            assert Path(file).is_relative_to(tmp_path / "volume")
            assert Path(file).read_bytes()

    cluster.happen = happen
    run_fn(fn_args)
    (task,) = tasks
    assert task.custom_config == {
        key: value for key, value in fn_args.custom_config.items() if key != "job"
    }
    assert Path(fn_args.serving_model_dir, "saved_model.pb").read_text() == '{"it": 1}'
    assert Path(fn_args.model_run_dir, "training.json").read_text() == '{"it": 1}'
    assert list((tmp_path / "volume" / "training-jobs").iterdir()) == []
    assert [request.rsplit("-", 1)[0] for request in cluster.requests] == [
        "POST jobs gpt2-training",
        "POST services gpt2-training",
        "DELETE services gpt2-training",
    ]


@pytest.mark.usefixtures("kubeconfig")
def test_sigterm_to_the_trainer_deletes_the_job(cluster, tmp_path):
    cluster.happen = lambda job: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(TrainingInterrupted):
        run_fn(arguments(tmp_path))
    assert [request.split()[0] for request in cluster.requests] == ["POST", "POST"] + ["DELETE"] * 2
    # What was staged is there for the next attempt.
    (folder,) = (tmp_path / "volume" / "training-jobs").iterdir()
    assert json.loads((folder / "task.json").read_text())["custom_config"]["start"] == "scratch"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"training": SETTINGS["training"] | {"strategy": {"name": "one_device"}}},
            "training.strategy.name must be 'multi_worker' where a training job has several "
            "workers, got 'one_device'",
        ),
        (
            {"training": SETTINGS["training"] | {"global_batch_size": 5}},
            "training.global_batch_size must be a multiple of 2, which is 2 workers times 1 "
            "devices times accumulation_steps=1, got 5",
        ),
        ({"job": {"image": "a/b:1"}}, "missing 1 required keyword-only argument: 'volume'"),
        ({"job": {"image": "a/b", "volume": "claim"}}, "image must be an image with a tag"),
        (
            {"job": {"image": "a/b:1", "volume": "claim", "mount_path": "/nowhere/at/all"}},
            "the Trainer's pod has the volume, '/nowhere/at/all' is no folder here",
        ),
        (
            {"checkpoints": "/tmp/checkpoints"},
            "checkpoints must lie on the volume of all workers, below ",
        ),
    ],
)
@pytest.mark.usefixtures("kubeconfig")
def test_bad_input_is_an_error_before_anything_is_started(cluster, tmp_path, settings, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is compared below)
        run_fn(arguments(tmp_path, **settings))
    assert message in str(error.value)
    assert cluster.requests == []


def test_a_job_without_a_cluster_is_an_error(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="a training job needs a Kubernetes cluster, but this"):
        connect()


def test_in_a_pod_the_cluster_is_the_pods_own(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    for name in ("token", "ca.crt", "namespace"):
        (tmp_path / name).write_text(f"the-{name}")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr(kubernetes_api, "_NAMESPACE_FILE", str(tmp_path / "namespace"))
    api = connect()
    assert (api.host, api.namespace) == ("https://10.0.0.1:443", "the-namespace")
    (tmp_path / "token").unlink()
    with pytest.raises(ValueError, match="Service token file does not exist"):
        connect()
