"""kubeflow/manifests, read, and what must agree between the objects in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "kubeflow" / "manifests"
SERVING = FOLDER / "serving"

Manifest = dict[str, Any]


def read(file: Path) -> list[Manifest]:
    """The objects in a YAML file."""
    return list(yaml.safe_load_all(file.read_text()))


def read_serving() -> list[Manifest]:
    """The objects of the serving's own files."""
    files = sorted(SERVING.glob("*.yaml"))
    return [each for file in files if file.stem != "kustomization" for each in read(file)]


def one(manifests: list[Manifest], kind: str) -> Manifest:
    """The only object of that kind."""
    (found,) = (each for each in manifests if each["kind"] == kind)
    return found


def containers(deployment: Manifest) -> list[Manifest]:
    """All containers of its pods, the first ones too."""
    pod = deployment["spec"]["template"]["spec"]
    return [*pod.get("initContainers", []), *pod["containers"]]


def flags(container: Manifest) -> dict[str, str]:
    """The `--name=value` arguments of a container."""
    return dict(word.removeprefix("--").split("=", 1) for word in container["args"])


def disagreements(manifests: list[Manifest]) -> Iterator[str]:
    """Gives a line for each place where one of the serving's objects misses what it means."""
    deployment = one(manifests, "Deployment")
    spec, pod = deployment["spec"], deployment["spec"]["template"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    selectors = {
        "Deployment": spec["selector"]["matchLabels"],
        "Service": one(manifests, "Service")["spec"]["selector"],
        "PodDisruptionBudget": one(manifests, "PodDisruptionBudget")["spec"]["selector"][
            "matchLabels"
        ],
        "topologySpreadConstraints": pod["topologySpreadConstraints"][0]["labelSelector"][
            "matchLabels"
        ],
    }
    for name, selector in selectors.items():
        if not selector or not selector.items() <= labels.items():
            yield f"{name} selects {selector}, the pods have {labels}"
    target = one(manifests, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    named = {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    if target != named:
        yield f"the autoscaler scales {target}"
    account = one(manifests, "ServiceAccount")["metadata"]["name"]
    if pod["serviceAccountName"] != account:
        yield f"the pods run as {pod['serviceAccountName']}"
    ports = {port["name"] for each in pod["containers"] for port in each.get("ports", [])}
    for port in one(manifests, "Service")["spec"]["ports"]:
        if port["targetPort"] not in ports:
            yield f"the Service forwards to {port['targetPort']}, the pods have {ports}"
    volumes = {each["name"] for each in pod["volumes"]}
    for container in containers(deployment):
        yield from _disagreements_in(container, volumes)


def _disagreements_in(container: Manifest, volumes: set[str]) -> Iterator[str]:
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if probe in container and container[probe]["httpGet"]["port"] not in ports:
            yield f"{container['name']}: {probe} asks port {container[probe]['httpGet']['port']}"
    for mount in container["volumeMounts"]:
        if mount["name"] not in volumes:
            yield f"{container['name']}: mounts {mount['name']}, which is no volume"
    if "args" in container:
        given = flags(container)
        told = {"grpc": int(given["port"]), "rest": int(given["rest_api_port"])}
        if told != ports:
            yield f"{container['name']}: listens on {told}, says {ports}"
