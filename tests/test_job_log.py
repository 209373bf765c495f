"""components/job_log.py: what the Trainer says of its Job, also where the API does not tell all."""

from collections.abc import Iterator
from typing import Any

import pytest

from components.training_job import TrainingJobError
from components.training_manifests import service_manifest
from tests.small_kubernetes import RefusalError, SmallKubernetes, end, small_kubernetes
from tests.small_training_job import NAME, RUNNING, ended, existing, training_job


@pytest.fixture
def cluster() -> Iterator[SmallKubernetes]:
    with small_kubernetes() as cluster:
        yield cluster


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
