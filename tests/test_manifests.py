"""kubeflow/manifests: every file's schema, and what the pipeline's tasks need of a cluster."""

import re

import pytest

from tests import manifests
from tests.kubernetes_schema import check_manifest
from tests.manifests import FOLDER, ROOT

FILES = [file for file in sorted(FOLDER.rglob("*.yaml")) if file.stem != "kustomization"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER)))
def test_a_manifest_keeps_to_kubernetes_schema(file):
    for manifest in manifests.read(file):
        assert check_manifest(manifest) == []


def test_the_tasks_may_do_what_our_code_calls_and_no_more():
    role, binding = manifests.read(FOLDER / "rbac.yaml")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    namespaces = {role["metadata"]["namespace"], binding["metadata"]["namespace"]}
    assert namespaces == {binding["subjects"][0]["namespace"]}
    allowed = {
        (verb, resource)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
    }
    verbs = {"read": "get", "replace": "update"}
    names = {"pod_log": "pods/log"}
    text = "".join(
        file.read_text()
        for folder in ("components", "kubeflow")
        for file in (ROOT / folder).glob("*.py")
    )
    called = {
        (verbs.get(verb, verb), names.get(name, f"{name}s"))
        for verb, name in re.findall(r"\.([a-z]+)_namespaced_(\w+)", text)
    }
    if not called:
        pytest.skip("nothing of ours calls Kubernetes")
    assert called == allowed


def test_the_volumes_owner_is_the_images_user():
    claim, job = manifests.read(FOLDER / "volume.yaml")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (volume,) = pod["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    _, owner, folder = container["command"]
    assert f"USER {owner}\n" in (ROOT / "kubeflow" / "Dockerfile").read_text()
    assert folder == container["volumeMounts"][0]["mountPath"] == "/workspace"
