"""The few calls of Kubernetes' API that a training Job needs, by Kubernetes' own client."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

# Seconds to connect, and for the answer to begin.
_TIMEOUT = (10, 60)


class ApiError(RuntimeError):
    """Kubernetes' API did not do what it was asked.

    Args:
        message: What was asked, and the answer.
        status: HTTP's, if there was an answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ApiUnavailableError(ApiError):
    """Kubernetes' API did not answer, or could not do it now: another try may succeed."""


class ApiRefusedError(ApiError):
    """Kubernetes' API said no."""


class KubernetesApi:
    """Reads and writes objects of one namespace, as plain dicts.

    The client's models are not used to read: those of version 26 refuse a Job whose failure policy
    has a rule about exit codes, as the server gives its `onPodConditions` as null.

    Args:
        client: A `kubernetes.client.ApiClient`.
        namespace: The namespace.

    Raises:
        ApiUnavailableError, ApiRefusedError: From each call.
    """

    def __init__(self, client: Any, namespace: str) -> None:
        from kubernetes.client import BatchV1Api, CoreV1Api

        self.namespace = namespace
        self.host = client.configuration.host
        self._jobs = BatchV1Api(client)
        self._core = CoreV1Api(client)

    def create_job(self, manifest: dict[str, Any]) -> dict[str, Any] | None:
        """Creates a Job and returns it; None if there is one of that name."""
        return self._create(self._jobs.create_namespaced_job, manifest)

    def create_service(self, manifest: dict[str, Any]) -> dict[str, Any] | None:
        """Creates a Service and returns it; None if there is one of that name."""
        return self._create(self._core.create_namespaced_service, manifest)

    def read_job(self, name: str) -> dict[str, Any] | None:
        """Returns the Job of that name, or None if there is none."""
        answer = self._call(self._jobs.read_namespaced_job, name, may_lack=True)
        return None if answer is None else json.loads(answer)

    def delete_job(self, name: str) -> None:
        """Has a Job and all that belongs to it deleted; nothing happens if there is none.

        The Job itself is the last to go.
        """
        self._call(
            self._jobs.delete_namespaced_job,
            name,
            may_lack=True,
            propagation_policy="Foreground",
        )

    def delete_service(self, name: str) -> None:
        """Deletes a Service; nothing happens if there is none."""
        self._call(self._core.delete_namespaced_service, name, may_lack=True)

    def list_pods(self, job: str) -> list[dict[str, Any]]:
        """Returns a Job's pods, the oldest first."""
        answer = self._call(self._core.list_namespaced_pod, label_selector=f"job-name={job}")
        pods: list[dict[str, Any]] = json.loads(answer or b"{}")["items"]
        return sorted(
            pods,
            key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]),
        )

    def read_log(self, pod: str, **options: Any) -> list[str]:
        """Returns the lines of a pod's log; none if it has none, or is not there any more.

        Args:
            pod: The pod's name.
            options: As of the client's `read_namespaced_pod_log`.
        """
        try:
            answer = self._call(self._core.read_namespaced_pod_log, pod, may_lack=True, **options)
        except ApiRefusedError as error:
            if error.status != 400:  # its container has not started
                raise
            return []
        # Not by splitlines, which would cut a progress line at each carriage return.
        return (answer or b"").decode(errors="replace").split("\n")[:-1]

    def _create(
        self, create: Callable[..., Any], manifest: dict[str, Any]
    ) -> dict[str, Any] | None:
        try:
            answer = self._call(create, body=manifest)
        except ApiRefusedError as error:
            if error.status != 409:
                raise
            return None
        return json.loads(answer or b"{}")

    def _call(
        self, method: Callable[..., Any], *names: str, may_lack: bool = False, **options: Any
    ) -> bytes | None:
        """Returns what the server answers; None if there is no such object and there need not be.

        A request that is tried again comes to the same: names are given, and don't change.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            response = method(
                *names,
                namespace=self.namespace,
                _preload_content=False,
                _request_timeout=_TIMEOUT,
                **options,
            )
            # Read here: what it comes in may break off, too.
            content: bytes = response.data
        except HTTPError as error:
            raise ApiUnavailableError(
                f"Kubernetes' API at {self.host} does not answer: {error}"
            ) from error
        except ApiException as error:
            if error.status == 404 and may_lack:
                return None
            asked = " ".join([method.__name__, *names])
            message = (
                f"Kubernetes' API at {self.host} refused {asked} in namespace "
                f"{self.namespace}: {_describe(error)}"
            )
            if error.status == 429 or error.status >= 500:
                raise ApiUnavailableError(message, error.status) from error
            raise ApiRefusedError(message, error.status) from error
        return content


def connect() -> KubernetesApi:
    """Returns the API of the cluster that this process runs in, or that kubectl would use.

    Raises:
        ValueError: There is none.
    """
    from kubernetes import client, config

    settings = client.Configuration()
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(settings)
            namespace = Path(_NAMESPACE_FILE).read_text().strip()
        else:
            config.load_kube_config(client_configuration=settings)
            _, context = config.list_kube_config_contexts()
            namespace = context["context"].get("namespace", "default")
    except config.ConfigException as error:
        raise ValueError(
            "a training job needs a Kubernetes cluster, but this process neither runs in a pod "
            f"that may ask one nor has a kubeconfig file: {error}"
        ) from error
    return KubernetesApi(client.ApiClient(settings), namespace)


def _describe(error: Any) -> str:
    """Returns what the server says of an error, which is a Status object, and its number."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body
    try:
        return f"{error.status} {json.loads(body)['message']}"
    except (TypeError, KeyError, json.JSONDecodeError):
        return f"{error.status} {error.reason}"
