"""components/training_job.py, job_log.py, kubernetes_api.py: a server plays Kubernetes' API.

What the workers themselves do is tested in test_training_worker.py.
"""

import itertools
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from components.kubernetes_api import (
    ApiRefusedError,
    ApiUnavailableError,
    KubernetesApi,
)
from components.training_job import TrainingJob, TrainingJobError
from components.training_job_spec import TrainingJobSpec
from components.training_manifests import job_manifest, service_manifest
from model.interruption import TrainingInterrupted
from tests.kubernetes_schema import check_manifest
from tests.small_kubernetes import (
    NAMESPACE,
    RefusalError,
    SmallKubernetes,
    end,
    small_kubernetes,
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


def test_a_workers_log_is_read_no_more_once_another_pod_has_taken_its_place(cluster, capsys):
    moments = iter(range(5))

    def happen(job: dict[str, Any]) -> None:
        moment = next(moments)
        if moment == 0:
            cluster.add_pod(NAME, 0, "Running", **RUNNING)
            cluster.logs[f"{NAME}-0-0"] = ["2030-01-01T00:00:00Z begins"]
        elif moment == 1:
            cluster.logs[f"{NAME}-0-0"].append("2030-01-01T00:00:01Z breaks")
            cluster.add_pod(NAME, 0, "Running", attempt=1, **RUNNING)
            cluster.logs[f"{NAME}-0-1"] = ["2030-01-01T01:00:00Z goes on"]
        elif moment == 4:
            end(job, "Complete")

    training_job(cluster).start(has_result=False)
    cluster.happen = happen
    training_job(cluster).follow()
    assert [query["pod"][-1] for query in cluster.log_queries] == list("00" + "1111")
    lines = [line for line in capsys.readouterr().err.splitlines() if " | " in line]
    assert lines == ["worker 0 | begins", "worker 0 | breaks", "worker 0 | goes on"]


@pytest.mark.parametrize("how", ["list_pods", "read_log"])
@pytest.mark.parametrize("code", [403, 500])
def test_a_job_ends_as_it_does_though_its_log_cant_be_read(cluster, monkeypatch, capsys, how, code):
    numbers = iter(range(4))

    def happen(job: dict[str, Any]) -> None:
        if next(numbers) == 3:
            end(job, "Complete")

    def refuse(*arguments: Any) -> None:
        raise RefusalError(code, f"request {next(requests)} did not reach the node")

    requests = iter(range(100))
    training_job(cluster).start(has_result=False)
    cluster.add_pod(NAME, 0, "Running", **RUNNING)
    cluster.happen = happen
    monkeypatch.setattr(cluster, how, refuse)
    training_job(cluster, patience_seconds=0).follow()
    shown = capsys.readouterr().err
    what = {
        "list_pods": f"the pods of training Job {NAME} can't be listed: ",
        "read_log": f"the log of {NAME}-0-0 can't be read: ",
    }[how]
    assert what in shown
    assert f"{code} request 0 did not reach the node" in shown
    assert shown.count("did not reach the node") == 1
    assert ("services", NAME) not in cluster.objects


def test_a_log_that_could_be_read_meanwhile_is_missed_anew(cluster, monkeypatch, capsys):
    answers = iter([500, 500, None, 500, 403, 403])

    def read_log(*arguments: Any) -> str:
        code = next(answers)
        if code:
            raise RefusalError(code, "no way")
        return "2030-01-01T00:00:00Z a line\n"

    def happen(job: dict[str, Any]) -> None:
        if next(moments) == 5:
            end(job, "Complete")

    moments = iter(range(6))
    training_job(cluster).start(has_result=False)
    cluster.add_pod(NAME, 0, "Running", **RUNNING)
    cluster.happen = happen
    monkeypatch.setattr(cluster, "read_log", read_log)
    training_job(cluster).follow()
    shown = capsys.readouterr().err
    assert [shown.count(f"{code} no way") for code in (500, 403)] == [2, 1]
    assert shown.count("worker 0 | a line") == 1


@pytest.mark.parametrize(
    ("how", "instead"),
    [("list_pods", "its pods can't be listed: "), ("read_log", "its log can't be read: ")],
)
def test_a_failed_jobs_reason_is_told_though_its_log_cant_be_read(
    cluster, monkeypatch, how, instead
):
    def refuse(*arguments: Any) -> None:
        raise RefusalError(403, "not for you")

    end(existing(cluster), "Failed", reason="BackoffLimitExceeded", message="has reached the limit")
    cluster.add_pod(NAME, 0, "Failed", **ended(137, "2030-01-01T00:00:00Z"))
    cluster.create("services", service_manifest(NAME, "uid-1"))
    monkeypatch.setattr(cluster, how, refuse)
    with pytest.raises(TrainingJobError) as error:
        training_job(cluster).follow()
    assert str(error.value).startswith(
        f"training Job {NAME} failed: BackoffLimitExceeded: has reached the limit\n"
    )
    assert instead in str(error.value)
    assert str(error.value).endswith("403 not for you")
    assert ("services", NAME) not in cluster.objects


def test_a_service_that_cant_be_deleted_does_not_hide_how_the_job_ended(
    cluster, monkeypatch, capsys
):
    def refuse(*arguments: Any) -> None:
        raise RefusalError(503, "try later")

    end(existing(cluster), "Failed", reason="BackoffLimitExceeded", message="has reached the limit")
    monkeypatch.setattr(cluster, "delete", refuse)
    with pytest.raises(TrainingJobError, match="BackoffLimitExceeded"):
        training_job(cluster).follow()
    assert "503 try later; Kubernetes deletes the Service with its Job" in capsys.readouterr().err


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


def test_a_connection_that_breaks_while_an_answer_is_read_is_tried_again(cluster, capsys):
    moments = iter(range(3))

    def happen(job: dict[str, Any]) -> None:
        moment = next(moments)
        cluster.breaks_off = moment == 1
        if moment == 2:
            end(job, "Complete")

    existing(cluster)
    cluster.happen = happen
    training_job(cluster).follow()
    shown = capsys.readouterr().err.splitlines()
    (line,) = [line for line in shown if "asking again" in line]
    assert line.startswith(f"Kubernetes' API at {cluster.url} does not answer: ")
    assert "IncompleteRead" in line


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
    times_asked = itertools.count()
    with pytest.raises(TrainingInterrupted, match=f"stopped by SIGTERM, and with it Job {NAME}"):
        training_job(cluster, must_stop=lambda: next(times_asked) == 3).follow()
    # The Job first: whoever sent SIGTERM may not wait for more.
    assert cluster.requests[2:] == [f"DELETE jobs {NAME}", f"DELETE services {NAME}"]


def test_who_must_stop_does_not_sleep_until_it_is_time_to_ask_again(cluster, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    training_job(cluster).start(has_result=False)
    with pytest.raises(TrainingInterrupted):
        training_job(cluster, must_stop=lambda: len(slept) == 3, poll_seconds=60).follow()
    assert max(slept) <= 0.1
    assert ("services", NAME) not in cluster.objects


def test_a_service_that_a_deleted_job_left_behind_is_replaced(cluster):
    cluster.create("services", service_manifest(NAME, owner="uid-of-the-deleted"))
    training_job(cluster).start(has_result=False)
    (owner,) = cluster.service(NAME)["metadata"]["ownerReferences"]
    assert owner["uid"] == cluster.job(NAME)["metadata"]["uid"]


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
    manifests = list(yaml.safe_load_all((MANIFESTS / "rbac.yaml").read_text()))
    assert [check_manifest(manifest) for manifest in manifests] == [[], []]
    allowed = {
        (group, resource, verb)
        for rule in manifests[0]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert allowed == cluster.permissions
