"""components/training_job.py, kubernetes_api.py: a server plays Kubernetes' API.

What is said of the Job meanwhile is tested in test_job_log.py, what the workers themselves do in
test_training_worker.py.
"""

import itertools
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.kubernetes_api import (
    ApiRefusedError,
    ApiUnavailableError,
)
from components.training_job import TrainingJob, TrainingJobError
from components.training_manifests import service_manifest
from model.interruption import TrainingInterrupted
from tests.kubernetes_schema import check_manifest
from tests.small_kubernetes import RefusalError, SmallKubernetes, end, small_kubernetes
from tests.small_training_job import NAME, SPEC, api_at, ended, existing, training_job

MANIFESTS = Path(__file__).parents[1] / "kubeflow" / "manifests"


@pytest.fixture
def cluster() -> Iterator[SmallKubernetes]:
    with small_kubernetes() as cluster:
        yield cluster


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
    with pytest.raises(TrainingInterrupted, match=f"stopped by a signal, and with it Job {NAME}"):
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
