"""components/training_job.py, job_log.py, kubernetes_api.py: a server plays Kubernetes' API.

What the workers themselves do is tested in test_training_worker.py.
"""

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from kubernetes import client
from kubernetes.config import incluster_config, kube_config

from components import kubernetes_api
from components.kubernetes_api import (
    ApiRefusedError,
    ApiUnavailableError,
    KubernetesApi,
    connect,
)
from components.trainer import run_fn
from components.training_job import TrainingJob, TrainingJobError
from components.training_job_spec import TrainingJobSpec
from components.training_manifests import job_manifest
from components.training_task import read_task
from model.interruption import TrainingInterrupted
from tests.kubernetes_schema import check_manifest
from tests.small_examples import write_examples
from tests.small_kubernetes import (
    NAMESPACE,
    RefusalError,
    SmallKubernetes,
    end,
    small_kubernetes,
    use_cluster,
)

MANIFESTS = Path(__file__).parents[1] / "kubeflow" / "manifests"
NAME = "gpt2-training-1234"
SPEC = TrainingJobSpec(image="registry/gpt2:1", volume="workspace")
RUNNING: dict[str, Any] = {"running": {"startedAt": "2030-01-01T00:00:00Z"}}


@pytest.fixture
def cluster() -> Iterator[SmallKubernetes]:
    with small_kubernetes() as cluster:
        yield cluster


def api_at(url: str) -> KubernetesApi:
    configuration = client.Configuration()
    configuration.host = url
    return KubernetesApi(client.ApiClient(configuration), NAMESPACE)


def training_job(cluster: SmallKubernetes, **options: Any) -> TrainingJob:
    defaults: dict[str, Any] = {"must_stop": lambda: False, "poll_seconds": 0.01}
    return TrainingJob(
        api_at(cluster.url), NAME, SPEC, "/workspace/task.json", **(defaults | options)
    )


def existing(cluster: SmallKubernetes) -> dict[str, Any]:
    """A Job that an earlier attempt has created."""
    job = cluster.create("jobs", job_manifest(NAME, SPEC, "/workspace/task.json"))
    cluster.requests.clear()
    return job


def ended(code: int, at: str) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": "Error", "finishedAt": at}}


# --- start ---


def test_the_job_is_created_with_a_service_that_goes_when_it_goes(cluster):
    training_job(cluster).start(has_result=False)
    assert cluster.requests == [f"POST jobs {NAME}", f"POST services {NAME}"]
    (owner,) = cluster.service(NAME)["metadata"]["ownerReferences"]
    uid = cluster.job(NAME)["metadata"]["uid"]
    assert owner == {"apiVersion": "batch/v1", "kind": "Job", "name": NAME, "uid": uid}
    args = cluster.job(NAME)["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[0] == "/workspace/task.json"


def test_a_job_that_runs_is_taken_up(cluster, capsys):
    existing(cluster)
    training_job(cluster).start(has_result=False)
    assert cluster.requests == [f"POST services {NAME}"]  # which the earlier attempt did not reach
    training_job(cluster).start(has_result=False)
    assert cluster.requests == [f"POST services {NAME}"]
    assert "has been started before: following it" in capsys.readouterr().err


def test_a_job_that_is_done_is_not_done_again_where_its_model_is_there(cluster):
    end(existing(cluster), "Complete")
    training_job(cluster).start(has_result=True)
    assert cluster.requests == [f"POST services {NAME}"]


@pytest.mark.parametrize("how", ["Failed", "Complete"])
def test_a_job_that_left_no_model_is_replaced(cluster, how):
    end(existing(cluster), how)
    training_job(cluster).start(has_result=False)
    assert cluster.requests == [f"DELETE jobs {NAME}", f"POST jobs {NAME}", f"POST services {NAME}"]
    assert cluster.job(NAME)["status"] == {}


def test_a_failed_job_is_replaced_even_where_there_are_files_of_a_model(cluster):
    end(existing(cluster), "Failed")
    training_job(cluster).start(has_result=True)
    assert f"POST jobs {NAME}" in cluster.requests


def test_a_job_that_is_being_deleted_is_waited_for(cluster):
    existing(cluster)["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    training_job(cluster).start(has_result=False)
    assert cluster.requests == [f"POST jobs {NAME}", f"POST services {NAME}"]


def test_a_cluster_that_does_not_answer_is_an_error_that_says_so():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    job = TrainingJob(api_at(f"http://127.0.0.1:{port}"), NAME, SPEC, "/task", lambda: False)
    with pytest.raises(ApiUnavailableError) as error:
        job.start(has_result=False)
    assert str(error.value).startswith(
        f"Kubernetes' API at http://127.0.0.1:{port} does not answer"
    )
    assert "Connection refused" in str(error.value)


def test_what_the_cluster_forbids_is_an_error_with_its_words(cluster, monkeypatch):
    def forbid(*arguments: Any) -> None:
        raise RefusalError(403, 'jobs.batch is forbidden: User "pipeline-runner" cannot create')

    monkeypatch.setattr(cluster, "create", forbid)
    with pytest.raises(ApiRefusedError) as error:
        training_job(cluster).start(has_result=False)
    assert str(error.value) == (
        f"Kubernetes' API at {cluster.url} refused create_namespaced_job in namespace team: "
        '403 jobs.batch is forbidden: User "pipeline-runner" cannot create'
    )


# --- follow ---


def test_what_happens_is_said_once_until_the_job_is_complete(cluster, capsys):
    moments = iter(range(4))

    def happen(job: dict[str, Any]) -> None:
        moment = next(moments)
        job["status"] = {"active": 2}
        if moment == 0:
            waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
            cluster.add_pod(NAME, 0, "Pending", waiting=waiting)
            cluster.add_pod(NAME, 1, "Running", **RUNNING)
            cluster.logs[f"{NAME}-1-0"] = ["2030-01-01T00:00:00Z not the chief's"]
        elif moment == 1:
            cluster.pods[0]["status"] = {
                "phase": "Running",
                "containerStatuses": [{"state": RUNNING}],
            }
            cluster.logs[f"{NAME}-0-0"] = [
                "2030-01-01T00:00:00Z first",
                "2030-01-01T00:00:00.5Z second",
            ]
        elif moment == 2:
            progress = "\r  0% of it\r 50% of it\r100% of it"
            cluster.logs[f"{NAME}-0-0"].append(f"2030-01-01T00:00:00.51Z {progress}")
        else:
            end(job, "Complete")
            job["status"]["succeeded"] = 2

    training_job(cluster).start(has_result=False)
    cluster.happen = happen
    capsys.readouterr()
    training_job(cluster).follow()
    assert capsys.readouterr().err.splitlines() == [
        f"training Job {NAME}: 2 active, 0 succeeded, 0 failed",
        f"worker 0, pod {NAME}-0-0: Pending, ImagePullBackOff: no such image",
        f"worker 1, pod {NAME}-1-0: Running",
        f"worker 0, pod {NAME}-0-0: Running",
        "worker 0 | first",
        "worker 0 | second",
        "worker 0 | 100% of it",
        f"training Job {NAME}: 0 active, 2 succeeded, 0 failed",
    ]
    assert "sinceSeconds" not in cluster.log_queries[0]
    assert [query["sinceSeconds"] for query in cluster.log_queries[1:]] == ["60", "60"]
    assert list(cluster.objects) == [("jobs", NAME)]  # the Service is deleted


def test_a_failed_jobs_error_has_the_last_lines_of_the_worker_that_failed_first(cluster):
    def happen(job: dict[str, Any]) -> None:
        if not cluster.pods:
            for attempt, (first, second) in enumerate([(1, 0), (0, 1)]):
                early, late = f"2030-01-01T0{attempt}:10:00Z", f"2030-01-01T0{attempt}:20:00Z"
                cluster.add_pod(NAME, first, "Failed", attempt=attempt, **ended(137, early))
                cluster.add_pod(NAME, second, "Failed", attempt=attempt, **ended(1, late))
            cluster.logs[f"{NAME}-0-1"] = [f"2030-01-01T00:00:00Z line {row}" for row in range(50)]
        end(job, "Failed", reason="BackoffLimitExceeded", message="has reached the limit")

    training_job(cluster).start(has_result=False)
    cluster.happen = happen
    with pytest.raises(TrainingJobError) as error:
        training_job(cluster).follow()
    assert str(error.value).splitlines() == [
        f"training Job {NAME} failed: BackoffLimitExceeded: has reached the limit",
        f"worker 0, pod {NAME}-0-1: Failed, Error, exit code 137",
        f"worker 1, pod {NAME}-1-1: Failed, Error, exit code 1",
        f"The last lines of {NAME}-0-1:",
        *[f"line {row}" for row in range(20, 50)],
    ]
    assert ("services", NAME) not in cluster.objects


def test_a_failed_job_without_pods_says_that_nothing_is_left(cluster):
    end(existing(cluster), "Failed", reason="DeadlineExceeded", message="too long")
    with pytest.raises(TrainingJobError, match="DeadlineExceeded: too long\nno pod of it is left"):
        training_job(cluster).follow()


def test_a_job_that_someone_deletes_is_an_error(cluster):
    with pytest.raises(TrainingJobError, match=f"training Job {NAME} was deleted meanwhile"):
        training_job(cluster).follow()


def test_a_cluster_that_is_away_for_a_moment_is_asked_again(cluster, capsys):
    answers = iter([503, 429, None])

    def happen(job: dict[str, Any]) -> None:
        code = next(answers)
        if code:
            raise RefusalError(code, "try later")
        end(job, "Complete")

    existing(cluster)
    cluster.happen = happen
    training_job(cluster).follow()
    shown = capsys.readouterr().err
    assert "503 try later; asking again" in shown
    assert "429 try later; asking again" in shown


def test_a_cluster_that_stays_away_is_an_error_and_its_job_is_left_alone(cluster):
    def happen(job: dict[str, Any]) -> None:
        raise RefusalError(503, "try later")

    existing(cluster)
    cluster.happen = happen
    with pytest.raises(ApiUnavailableError, match="503 try later"):
        training_job(cluster, patience_seconds=0.05).follow()
    assert cluster.requests == []
    assert ("jobs", NAME) in cluster.objects


def test_who_must_stop_deletes_the_job(cluster):
    training_job(cluster).start(has_result=False)
    answers = iter([False, False, True, True])
    with pytest.raises(TrainingInterrupted, match=f"stopped by SIGTERM, and with it Job {NAME}"):
        training_job(cluster, must_stop=lambda: next(answers)).follow()
    assert cluster.requests[2:] == [f"DELETE services {NAME}", f"DELETE jobs {NAME}"]


def test_the_role_for_the_trainer_allows_just_what_it_asks(cluster):
    def fail(job: dict[str, Any]) -> None:
        if not cluster.pods:
            cluster.add_pod(NAME, 0, "Failed", **ended(1, "2030-01-01T00:00:00Z"))
        end(job, "Failed")

    end(existing(cluster), "Failed")
    training_job(cluster).start(has_result=False)
    cluster.happen = fail
    with pytest.raises(TrainingJobError):
        training_job(cluster).follow()
    manifests = list(yaml.safe_load_all((MANIFESTS / "training-job-rbac.yaml").read_text()))
    assert [check_manifest(manifest) for manifest in manifests] == [[], []]
    allowed = {
        (group, resource, verb)
        for rule in manifests[0]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert allowed == cluster.permissions


# --- run_fn ---

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
    "start": "scratch",
}


def arguments(folder: Path, **settings: Any) -> SimpleNamespace:
    """TFX's FnArgs; the volume is `folder/volume`."""
    (folder / "volume").mkdir(exist_ok=True)
    for split in ("train", "eval"):
        write_examples(folder / "examples" / split / "part-0.gz", [[1, 2, 50256]])
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
    for folder, name in ((task.serving_model_dir, "saved_model.pb"), (task.model_run_dir, "it")):
        Path(folder).mkdir(parents=True)
        Path(folder, name).write_text(name)
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
    assert Path(fn_args.serving_model_dir, "saved_model.pb").read_text() == "saved_model.pb"
    assert Path(fn_args.model_run_dir, "it").read_text() == "it"
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
