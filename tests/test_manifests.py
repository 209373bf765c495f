"""kubeflow/manifests: every file's schema, and what the pipeline's tasks need of a cluster."""

import pytest

from tests import manifests
from tests.kubernetes_schema import check_manifest
from tests.manifests import FOLDER, ROOT

FILES = [file for file in sorted(FOLDER.rglob("*.yaml")) if file.stem != "kustomization"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER)))
def test_a_manifest_keeps_to_kubernetes_schema(file):
    for manifest in manifests.read(file):
        assert check_manifest(manifest) == []


def test_the_role_is_bound_to_the_tasks_account_in_one_namespace():
    # What the role allows is compared with the requests themselves in test_training_job.py.
    role, binding = manifests.read(FOLDER / "rbac.yaml")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    namespaces = {role["metadata"]["namespace"], binding["metadata"]["namespace"]}
    assert namespaces == {binding["subjects"][0]["namespace"]}


def test_the_volumes_owner_is_the_images_user():
    claim, job = manifests.read(FOLDER / "volume.yaml")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (volume,) = pod["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    _, owner, folder = container["command"]
    assert f"USER {owner}\n" in (ROOT / "kubeflow" / "Dockerfile").read_text()
    assert folder == container["volumeMounts"][0]["mountPath"] == "/workspace"
