"""tests/kubernetes_schema.py, by which manifests are checked."""

import copy
from typing import Any

import pytest

from tests.kubernetes_schema import check_manifest

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "server", "labels": {"app": "server"}},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "server"}},
        "template": {
            "metadata": {"labels": {"app": "server"}},
            "spec": {
                "containers": [
                    {
                        "name": "server",
                        "image": "server:1",
                        "ports": [{"containerPort": 8500, "name": "grpc"}],
                        "resources": {"limits": {"cpu": "500m", "memory": "2Gi"}},
                        "readinessProbe": {"grpc": {"port": 8500}, "periodSeconds": 5},
                    }
                ]
            },
        },
    },
}
CONTAINER = ("spec", "template", "spec", "containers", 0)


def changed(*path: Any, value: Any) -> dict[str, Any]:
    """The deployment with another value in one place."""
    manifest = copy.deepcopy(DEPLOYMENT)
    place: Any = manifest
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return manifest


def without(*path: Any) -> dict[str, Any]:
    manifest = changed(*path, value=None)
    place: Any = manifest
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return manifest


def test_a_manifest_that_is_right_has_no_problems():
    assert check_manifest(DEPLOYMENT) == []


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("v1", "Service"),
        ("v1", "ServiceAccount"),
        ("v1", "ConfigMap"),
        ("v1", "PersistentVolumeClaim"),
        ("batch/v1", "Job"),
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
        ("policy/v1", "PodDisruptionBudget"),
        ("rbac.authorization.k8s.io/v1", "Role"),
        ("rbac.authorization.k8s.io/v1", "RoleBinding"),
        ("networking.k8s.io/v1", "Ingress"),
    ],
)
def test_a_kind_is_known_in_its_own_group(api_version, kind):
    problems = check_manifest({"apiVersion": api_version, "kind": kind})
    assert f"{kind}: metadata.name is required" in problems
    assert check_manifest({"apiVersion": "node.k8s.io/v1", "kind": kind}) == [
        f"no such object: 'node.k8s.io/v1', {kind!r}"
    ]


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        (changed("apiVersion", value="v1"), "no such object: 'v1', 'Deployment'"),
        (without("kind"), "no such object: 'apps/v1', None"),
        (without("metadata", "name"), "Deployment: metadata.name is required"),
        (without("spec"), "Deployment: spec is required"),
        (changed("spec", "replica", value=2), "Deployment.spec: unknown key 'replica'"),
        (changed("spec", "min_ready_seconds", value=2), "unknown key 'min_ready_seconds'"),
        (changed("spec", "replicas", value="2"), "spec.replicas: must be of type int, got '2'"),
        (changed("spec", "replicas", value=True), "spec.replicas: must be of type int, got True"),
        (changed("spec", "replicas", value=None), "spec.replicas: must have a value"),
        (without("spec", "selector"), "Deployment.spec: selector is required"),
        (without(*CONTAINER, "name"), "spec.template.spec.containers[0]: name is required"),
        (changed(*CONTAINER, "args", value="--port"), "args: must be a list, got '--port'"),
        (changed(*CONTAINER, "args", value=[1]), "args[0]: must be of type str, got 1"),
        (changed(*CONTAINER, "ports", 0, "port", value=1), "ports[0]: unknown key 'port'"),
        (changed(*CONTAINER, "resources", value=3), "resources: must hold keys and values, got 3"),
        (
            changed(*CONTAINER, "resources", "limits", "memory", value="2 GB"),
            "resources.limits.memory: must be an amount such as 2, 500m or 4Gi, got '2 GB'",
        ),
        (
            changed("metadata", "labels", "app", value=1),
            "Deployment.metadata.labels.app: must be of type str, got 1",
        ),
    ],
)
def test_a_problem_is_named_with_its_place(manifest, problem):
    (found,) = check_manifest(manifest)
    assert problem in found


def test_all_problems_are_named():
    manifest = changed("spec", "replicas", value="2")
    manifest["spec"]["paused"] = "no"
    assert len(check_manifest(manifest)) == 2
