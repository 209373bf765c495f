"""A training Job in the small cluster of small_kubernetes.py, and what happens to it."""

from typing import Any

from kubernetes import client

from components.kubernetes_api import KubernetesApi
from components.training_job import TrainingJob
from components.training_job_spec import TrainingJobSpec
from components.training_manifests import job_manifest
from tests.small_kubernetes import NAMESPACE, SmallKubernetes

NAME = "gpt2-training-1234"
SPEC = TrainingJobSpec(image="registry/gpt2:1", volume="workspace")
RUNNING: dict[str, Any] = {"running": {"startedAt": "2030-01-01T00:00:00Z"}}


def api_at(url: str) -> KubernetesApi:
    """Kubernetes' API there."""
    configuration = client.Configuration()
    configuration.host = url
    return KubernetesApi(client.ApiClient(configuration), NAMESPACE)


def training_job(cluster: SmallKubernetes, **options: Any) -> TrainingJob:
    """What starts and follows the Job, without much waiting."""
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
    """The state of a container that has ended."""
    return {"terminated": {"exitCode": code, "reason": "Error", "finishedAt": at}}
