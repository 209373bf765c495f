"""Kubernetes' API, as far as a training Job asks for it, played by a real HTTP server.

What it refuses and how it answers is as the API's reference says. It takes no manifest in which
`check_manifest` finds anything.
"""

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from kubernetes.config import kube_config

from tests.kubernetes_schema import check_manifest

NAMESPACE = "team"
KINDS = {"jobs": "batch/v1", "services": "v1"}
INDEX = "batch.kubernetes.io/job-completion-index"


class RefusalError(Exception):
    """What the server answers in place of an object."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class SmallKubernetes:
    """What is in the namespace.

    `happen` is called with the Job before each time that it is read, to move the story on, and may
    raise a `RefusalError`. `requests` are the requests that change something, as `POST jobs NAME`,
    and `permissions` is what a role must allow for all requests: group, resource and verb. While
    `breaks_off` is true, each answer ends in its middle.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.pods: list[dict[str, Any]] = []
        self.logs: dict[str, list[str]] = {}
        self.requests: list[str] = []
        self.permissions: set[tuple[str, str, str]] = set()
        self.log_queries: list[dict[str, str]] = []
        self.happen: Callable[[dict[str, Any]], None] = lambda job: None
        self.breaks_off = False
        self.url = ""
        self._uids = 0

    def job(self, name: str) -> dict[str, Any]:
        return self.objects["jobs", name]

    def service(self, name: str) -> dict[str, Any]:
        return self.objects["services", name]

    def add_pod(
        self, job: str, index: int, phase: str, *, attempt: int = 0, **state: dict[str, Any]
    ) -> str:
        """Adds a pod of the Job, its container in `state`, and returns its name."""
        name = f"{job}-{index}-{attempt}"
        self.pods.append(
            {
                "metadata": {
                    "name": name,
                    "creationTimestamp": f"2030-01-01T0{attempt}:00:00Z",
                    "labels": {"job-name": job},
                    "annotations": {INDEX: str(index)},
                },
                "status": {"phase": phase, "containerStatuses": [{"state": state}]},
            }
        )
        return name

    def create(self, resource: str, manifest: dict[str, Any]) -> dict[str, Any]:
        problems = check_manifest(manifest)
        if manifest.get("apiVersion") != KINDS[resource] or problems:
            raise RefusalError(422, "; ".join(problems))
        name = manifest["metadata"]["name"]
        if (resource, name) in self.objects:
            raise RefusalError(409, f'{resource} "{name}" already exists')
        self.requests.append(f"POST {resource} {name}")
        self._uids += 1
        manifest["metadata"]["uid"] = f"uid-{self._uids}"
        manifest["status"] = {}
        for rule in manifest["spec"].get("podFailurePolicy", {}).get("rules", []):
            rule.setdefault("onPodConditions", None)  # so does the real one
        self.objects[resource, name] = manifest
        return manifest

    def read(self, resource: str, name: str) -> dict[str, Any]:
        if (resource, name) in self.objects:
            found = self.objects[resource, name]
            if "deletionTimestamp" in found["metadata"]:  # seen this once, then gone
                del self.objects[resource, name]
            else:
                self.happen(found)
            return found
        raise RefusalError(404, f'{resource} "{name}" not found')

    def delete(self, resource: str, name: str, policy: str) -> dict[str, Any]:
        if (resource, name) not in self.objects:
            raise RefusalError(404, f'{resource} "{name}" not found')
        self.requests.append(f"DELETE {resource} {name}")
        if policy == "Foreground":
            found = self.objects[resource, name]
            found["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
            self.pods = [pod for pod in self.pods if pod["metadata"]["labels"]["job-name"] != name]
            return found
        return self.objects.pop((resource, name))

    def list_pods(self, job: str) -> dict[str, Any]:
        labels = {"job-name": job}
        return {"items": [pod for pod in self.pods[::-1] if pod["metadata"]["labels"] == labels]}

    def read_log(self, pod: str, query: dict[str, str]) -> str:
        found = [each for each in self.pods if each["metadata"]["name"] == pod]
        if not found:
            raise RefusalError(404, f'pods "{pod}" not found')
        if "waiting" in found[0]["status"]["containerStatuses"][0]["state"]:
            raise RefusalError(400, f'container "worker" in pod "{pod}" is waiting to start')
        self.log_queries.append({"pod": pod, **query})
        lines = self.logs.get(pod, [])
        if query.get("timestamps") != "True":  # as Go too takes a bool to be written
            lines = [line.partition(" ")[2] for line in lines]
        return "".join(f"{line}\n" for line in lines[-int(query.get("tailLines", 10**6)) :])


def end(job: dict[str, Any], how: str, **reason: str) -> None:
    """Has a Job ended, `Complete` or `Failed`."""
    job["status"] = {"conditions": [{"type": how, "status": "True", **reason}]}


def use_cluster(cluster: SmallKubernetes, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has kubectl's configuration, which is written into the file, name the cluster."""
    context = {"cluster": "small", "user": "me", "namespace": NAMESPACE}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "small",
        "contexts": [{"name": "small", "context": context}],
        "clusters": [{"name": "small", "cluster": {"server": cluster.url}}],
        "users": [{"name": "me", "user": {}}],
    }
    file.write_text(yaml.dump(content))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    # The variable KUBECONFIG is read when the package is imported.
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(file))


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def log_message(self, *arguments: Any) -> None:
        pass

    def _answer(self, method: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        try:
            answer = self._do(method, url.path, query, body)
            code = 200
        except RefusalError as refusal:
            code = refusal.code
            answer = {"kind": "Status", "code": code, "message": str(refusal)}
        content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.server.cluster.breaks_off:
            content = content[: len(content) // 2]
        self.wfile.write(content)

    def _do(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> Any:
        cluster: SmallKubernetes = self.server.cluster
        found = re.fullmatch(
            rf"/(api/v1|apis/batch/v1)/namespaces/{NAMESPACE}/(\w+)(?:/([^/]+))?(/log)?", path
        )
        if not found:
            raise RefusalError(404, f"no such path: {path}")
        group, resource, name, log = found.groups()
        verb = {"POST": "create", "DELETE": "delete", "GET": "get" if name else "list"}[method]
        api_group = group.removeprefix("apis/").rpartition("/")[0].removeprefix("api")
        cluster.permissions.add((api_group, resource + (log or ""), verb))
        if resource == "pods" and group == "api/v1" and method == "GET":
            if log:
                return cluster.read_log(name, query)
            return cluster.list_pods(query["labelSelector"].removeprefix("job-name="))
        if group not in (f"api/{KINDS.get(resource)}", f"apis/{KINDS.get(resource)}") or log:
            raise RefusalError(404, f"no such path: {path}")
        if method == "POST" and name is None:
            return cluster.create(resource, body)
        if method == "GET" and name is not None:
            return cluster.read(resource, name)
        if method == "DELETE" and name is not None:
            return cluster.delete(resource, name, query.get("propagationPolicy", ""))
        raise RefusalError(405, f"{method} {path}")


@contextlib.contextmanager
def small_kubernetes() -> Iterator[SmallKubernetes]:
    """A cluster whose API answers at `url`."""
    cluster = SmallKubernetes()
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.cluster = cluster
    cluster.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
