"""A training Job on Kubernetes, from its start to its end."""

import sys
import time
from collections.abc import Callable
from typing import Any

from components.job_log import JobLog, failure_report
from components.kubernetes_api import (
    ApiError,
    ApiUnavailableError,
    KubernetesApi,
    connect,
)
from components.training_job_spec import TrainingJobSpec, read_spec
from components.training_manifests import job_manifest, service_manifest
from components.training_task import (
    MODEL_RUN,
    collect_results,
    is_whole,
    stage_task,
    task_folder,
    task_name,
)
from model.interruption import InterruptionWatch, TrainingInterrupted
from model.training_config import TrainingConfig

# How often, while it waits, it is looked whether to stop. Argo, which runs Kubeflow's tasks, sends
# SIGTERM to all of a container's processes and looks each second whether the first of them has
# ended; with that one the container ends (workflow/executor/os-specific/signal_linux.go, Wait).
_LOOK_SECONDS = 0.1


class TrainingJobError(RuntimeError):
    """The training Job ended without a model."""


def train_in_job(fn_args: Any, training: TrainingConfig) -> None:
    """Has the model and the report written by a Job, in place of this process.

    A Job that an earlier attempt at the same task has started is taken up.

    Args:
        fn_args: TFX's FnArgs; `job` in its `custom_config` has the fields of `TrainingJobSpec`.
        training: How the model is trained.

    Raises:
        ValueError: Bad input, or there is no cluster.
        ApiUnavailableError, ApiRefusedError: The cluster does not answer, or refuses.
        TrainingJobError: The Job failed; the message has a failed worker's last lines.
        TrainingInterrupted: SIGTERM or SIGINT came, and the Job was deleted.
    """
    spec = read_spec(fn_args.custom_config["job"], training)
    api = connect()
    name = task_name(fn_args)
    task_file = stage_task(fn_args, spec.mount_path, name)
    model_run = task_folder(spec.mount_path, name) / MODEL_RUN
    with InterruptionWatch() as interruption:
        job = TrainingJob(api, name, spec, str(task_file), lambda: interruption.is_asked)
        job.start(has_result=is_whole(model_run))
        job.follow()
    collect_results(fn_args, spec.mount_path, name)


class TrainingJob:
    """A Job with its Service.

    Args:
        api: The cluster.
        name: The name of both.
        spec: What the Job is made of.
        task_file: What the workers do, on the volume.
        must_stop: Asked again and again; once it says yes, the Job is deleted.
        poll_seconds: How often the cluster is asked for news.
        patience_seconds: How long the API may be silent while the Job is followed: a control plane
            that is updated is away for minutes, and the workers train on.
    """

    def __init__(
        self,
        api: KubernetesApi,
        name: str,
        spec: TrainingJobSpec,
        task_file: str,
        must_stop: Callable[[], bool],
        *,
        poll_seconds: float = 5.0,
        patience_seconds: float = 600.0,
    ) -> None:
        self._api = api
        self._name = name
        self._manifest = job_manifest(name, spec, task_file)
        self._must_stop = must_stop
        self._poll_seconds = poll_seconds
        self._patience_seconds = patience_seconds

    def start(self, has_result: bool) -> None:
        """Creates Job and Service. What there is of an earlier attempt is taken up or cleared away.

        Args:
            has_result: Whether there is a model, so that a Job that is done need not run again.
        """
        while True:
            found = self._api.read_job(self._name)
            if found is None:
                found = self._api.create_job(self._manifest)
                if found is None:
                    continue  # someone else was faster
                # There may still be that of a Job of this name that was deleted.
                self._api.delete_service(self._name)
                _say(f"started training Job {self._name} in namespace {self._api.namespace}")
                break
            if "deletionTimestamp" not in found["metadata"]:
                ended = _ended(found)
                if ended is None or (ended["type"] == "Complete" and has_result):
                    _say(f"training Job {self._name} has been started before: following it")
                    break
                _say(f"training Job {self._name} of an earlier attempt has ended: replacing it")
                self._delete()
            self._wait()
        self._api.create_service(service_manifest(self._name, found["metadata"]["uid"]))

    def follow(self) -> None:
        """Returns when the Job is complete; says meanwhile what happens, and shows the chief's log.

        Raises:
            TrainingJobError: It failed, or was deleted.
            TrainingInterrupted: It had to stop, and was deleted.
            ApiUnavailableError: The cluster was silent for too long. The Job is left alone.
            ApiRefusedError: It does not let us look. The Job is left alone.
        """
        log = JobLog(self._api, self._name, _say)
        self._heard_at = time.monotonic()
        while (ended := self._look(log)) is None:
            self._wait()
        self._delete_service()
        if ended["type"] == "Failed":
            raise TrainingJobError(
                f"training Job {self._name} failed: {ended.get('reason')}: "
                f"{ended.get('message')}\n{failure_report(self._api, self._name)}"
            )

    def _look(self, log: JobLog) -> dict[str, Any] | None:
        """Says what is new, and returns how the Job has ended, None as long as it has not."""
        try:
            job = self._api.read_job(self._name)
        except ApiUnavailableError as error:
            if time.monotonic() > self._heard_at + self._patience_seconds:
                raise
            _say(f"{error}; asking again")
            return None
        self._heard_at = time.monotonic()
        if job is None:
            raise TrainingJobError(f"training Job {self._name} was deleted meanwhile")
        log.show(job)
        return _ended(job)

    def _wait(self) -> None:
        """Waits for the time to ask again.

        Raises:
            TrainingInterrupted: It had to stop, and the Job was deleted.
        """
        until = time.monotonic() + self._poll_seconds
        while not self._must_stop():
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _LOOK_SECONDS))
        self._delete()
        raise TrainingInterrupted(
            f"training was stopped by a signal, and with it Job {self._name}; it goes on from "
            "the last checkpoint when started again"
        )

    def _delete(self) -> None:
        self._api.delete_job(self._name)  # first, as there may be no time for more
        self._delete_service()

    def _delete_service(self) -> None:
        """Deletes the Service of a Job that has ended or is deleted; nothing hangs on it."""
        try:
            self._api.delete_service(self._name)
        except ApiError as error:
            _say(f"{error}; Kubernetes deletes the Service with its Job")


def _ended(job: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the condition, `Complete` or `Failed`, by which a Job has ended, or None."""
    for condition in job.get("status", {}).get("conditions") or []:
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return condition
    return None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
