"""kubeflow/manifests/serving: a stock TensorFlow Serving on Kubernetes."""

import copy
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import text_format
from kubernetes.utils import parse_quantity
from tensorflow_serving.config import model_server_config_pb2

from tests import manifests
from tests.kubernetes_schema import check_manifest
from tests.manifests import ROOT, SERVING

STOCK = ROOT / "serving" / "stock"

KINDS = {
    "ConfigMap",
    "Deployment",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "Service",
    "ServiceAccount",
}


@pytest.fixture
def serving() -> list[dict[str, Any]]:
    return copy.deepcopy(manifests.read_serving())


@pytest.fixture
def server(serving) -> dict[str, Any]:
    """The container of TensorFlow Serving."""
    deployment = manifests.one(serving, "Deployment")
    (found,) = (each for each in manifests.containers(deployment) if each["name"] == "serving")
    return found


def kustomizations() -> list[dict[str, Any]]:
    return [manifests.read(folder / "kustomization.yaml")[0] for folder in (SERVING, STOCK)]


def settings() -> dict[str, str]:
    """What model.env says."""
    lines = (SERVING / "model.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_a_mistake_in_a_manifest_is_found(serving, server):
    deployment = manifests.one(serving, "Deployment")
    server["readinessProbe"]["httpGet"]["prot"] = "rest"
    server["ports"][0]["containerPort"] = "8500"
    del server["volumeMounts"][0]["mountPath"]
    assert len(check_manifest(deployment)) == 3


def test_selectors_ports_and_volumes_are_those_of_the_pods(serving):
    assert list(manifests.disagreements(serving)) == []


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", "spec.template.metadata.labels", {"app.kubernetes.io/part-of": "gpt2-tfx"}),
        ("Service", "spec.selector", {"app": "gpt2-serving"}),
        ("Service", "spec.ports.0.targetPort", "http"),
        ("PodDisruptionBudget", "spec.selector.matchLabels", {}),
        ("HorizontalPodAutoscaler", "spec.scaleTargetRef.name", "gpt2"),
        ("ServiceAccount", "metadata.name", "gpt2"),
        ("Deployment", "spec.template.spec.containers.0.ports.0.containerPort", 8501),
        ("Deployment", "spec.template.spec.containers.0.readinessProbe.httpGet.port", "http"),
        ("Deployment", "spec.template.spec.containers.1.volumeMounts.0.name", "model"),
    ],
)
def test_a_disagreement_is_found(serving, kind, path, value):
    *places, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    place: Any = manifests.one(serving, kind)
    for key in places:
        place = place[key]
    place[last] = value
    assert list(manifests.disagreements(serving))


def test_the_server_is_that_of_serving_stock_with_its_flags(server):
    compose = yaml.safe_load((STOCK / "docker-compose.yml").read_text())["services"]["serving"]
    assert server["image"] == compose["image"]
    assert server["command"] == [compose["entrypoint"]]
    told = manifests.flags(server)
    # One that stays connected would never reach a server that the autoscaler adds.
    arguments = dict(word.split("=") for word in told.pop("grpc_channel_arguments").split(","))
    assert arguments.keys() == {
        "grpc.max_connection_age_ms",
        "grpc.max_connection_age_grace_ms",
    }
    assert told == manifests.flags({"args": compose["command"]})


def test_the_server_is_of_the_version_that_infra_validator_starts(server):
    found = re.search(
        r'^_TENSORFLOW_SERVING = "(.+?)"', (ROOT / "pipeline" / "graph.py").read_text(), re.M
    )
    assert found
    assert server["image"] == f"tensorflow/serving:{found[1]}"


def test_config_maps_are_made_of_serving_stocks_own_files(serving, server):
    generated = {
        each["name"]: set(each.get("files", []))
        for kustomization in kustomizations()
        for each in kustomization["configMapGenerator"]
    }
    assert generated["gpt2-serving-config"] == {
        each.name for each in STOCK.iterdir() if each.suffix in {".txt", ".config"}
    }
    assert generated["gpt2-serving-fetch"] == {"fetch.sh"}
    pod = manifests.one(serving, "Deployment")["spec"]["template"]["spec"]
    mounted = {
        each["name"]: each["configMap"]["name"] for each in pod["volumes"] if "configMap" in each
    }
    paths = {each["name"]: each["mountPath"] for each in server["volumeMounts"]}
    for name, value in manifests.flags(server).items():
        if name.endswith("_file"):
            folder, file = os.path.split(value)
            assert folder == paths["config"]
            assert file in generated[mounted["config"]]
    for container in manifests.containers(manifests.one(serving, "Deployment")):
        if container["name"].startswith("fetch"):
            assert container["command"][:2] == ["sh", "/fetch/fetch.sh"]
            assert container["envFrom"][0]["configMapRef"]["name"] in generated


def test_resources_of_the_kustomization_are_all_there_are():
    resources, _ = (each.get("resources", []) for each in kustomizations())
    files = {each.name for each in SERVING.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(resources) == files | {"../../../serving/stock"}


def test_one_name_stands_in_the_model_config_the_fetching_and_the_probes(serving, server):
    text = (STOCK / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    (fetch,) = (
        each
        for each in manifests.containers(manifests.one(serving, "Deployment"))
        if each["name"] == "fetch"
    )
    folder = {each["name"]: each.get("value") for each in fetch["env"]}["FOLDER"]
    assert model.name == settings()["MODEL"]
    assert model.base_path == f"{folder}/{model.name}"
    for probe in ("startupProbe", "readinessProbe"):
        assert server[probe]["httpGet"]["path"] == f"/v1/models/{model.name}/metadata"
    assert server["livenessProbe"]["httpGet"]["path"] == f"/v1/models/{model.name}"


def test_every_scheme_of_kubeflow_pipelines_has_its_rclone_remote():
    assert settings()["MODELS_URI"].startswith("s3://")
    types = {key: value for key, value in settings().items() if key.endswith("_TYPE")}
    assert types == {
        "RCLONE_CONFIG_S3_TYPE": "s3",
        "RCLONE_CONFIG_MINIO_TYPE": "s3",
        "RCLONE_CONFIG_GS_TYPE": "google cloud storage",
    }


def test_a_busy_server_is_not_taken_for_a_dead_one(server):
    liveness = server["livenessProbe"]
    longest_call = int(manifests.flags(server)["rest_api_timeout_in_ms"]) / 1000
    assert liveness["periodSeconds"] * liveness["failureThreshold"] > longest_call


def test_a_pod_has_time_to_stop(serving, server):
    pod = manifests.one(serving, "Deployment")["spec"]["template"]["spec"]
    _, seconds = server["lifecycle"]["preStop"]["exec"]["command"]
    assert int(seconds) < pod["terminationGracePeriodSeconds"]


def test_no_container_is_roots_or_without_limits(serving):
    deployment = manifests.one(serving, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert not pod["automountServiceAccountToken"]
    for container in manifests.containers(deployment):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        resources = container["resources"]
        for name in ("cpu", "memory"):
            requested, limit = resources["requests"][name], resources["limits"][name]
            assert 0 < parse_quantity(requested) <= parse_quantity(limit)


def test_a_drained_node_leaves_a_server_running(serving):
    scaling = manifests.one(serving, "HorizontalPodAutoscaler")["spec"]
    budget = manifests.one(serving, "PodDisruptionBudget")["spec"]
    assert scaling["minReplicas"] > budget["maxUnavailable"] == 1
    deployment = manifests.one(serving, "Deployment")["spec"]
    assert "replicas" not in deployment  # kubectl apply would take back what the autoscaler did


def test_prometheus_is_told_where_the_server_has_its_figures(serving, server):
    annotations = manifests.one(serving, "Deployment")["spec"]["template"]["metadata"][
        "annotations"
    ]
    assert (
        f'path: "{annotations["prometheus.io/path"]}"' in (STOCK / "monitoring.config").read_text()
    )
    assert annotations["prometheus.io/port"] == manifests.flags(server)["rest_api_port"]


def render(folder: Path) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl, which has kustomize, is not installed")
    text = subprocess.run(
        [kubectl, "kustomize", folder],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": os.devnull},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return list(yaml.safe_load_all(text))


def test_what_kubectl_applies_keeps_to_the_schema_and_holds_together():
    rendered = render(SERVING)
    assert {each["kind"] for each in rendered} == KINDS
    for manifest in rendered:
        assert check_manifest(manifest) == []
    assert list(manifests.disagreements(rendered)) == []
    maps = {each["metadata"]["name"]: each for each in rendered if each["kind"] == "ConfigMap"}
    pod = manifests.one(rendered, "Deployment")["spec"]["template"]["spec"]
    mounted = {
        each["name"]: maps[each["configMap"]["name"]]["data"]
        for each in pod["volumes"]
        if "configMap" in each
    }
    for name in ("batching_parameters.txt", "models.config", "monitoring.config"):
        assert mounted["config"][name] == (STOCK / name).read_text()
    assert mounted["fetch"] == {"fetch.sh": (SERVING / "fetch.sh").read_text()}
    assert maps[pod["containers"][1]["envFrom"][0]["configMapRef"]["name"]]["data"] == settings()


def test_another_model_needs_its_name_in_two_files_only(tmp_path):
    for folder in (SERVING, STOCK):
        shutil.copytree(folder, tmp_path / folder.relative_to(ROOT))
    copied = tmp_path / SERVING.relative_to(ROOT)
    for file in (copied / "model.env", tmp_path / "serving" / "stock" / "models.config"):
        file.write_text(file.read_text().replace("shakespeare", "gpt2"))
    rendered = render(copied)
    (server, _) = manifests.one(rendered, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert server["startupProbe"]["httpGet"]["path"] == "/v1/models/gpt2/metadata"
    assert server["readinessProbe"]["httpGet"]["path"] == "/v1/models/gpt2/metadata"
    assert server["livenessProbe"]["httpGet"]["path"] == "/v1/models/gpt2"
    assert "shakespeare" not in yaml.safe_dump_all(rendered)
