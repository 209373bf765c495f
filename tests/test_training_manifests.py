"""components/training_manifests.py, training_job_spec.py, and the manifests for people to apply."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.training_job_spec import TrainingJobSpec, check_agreement, read_spec
from components.training_manifests import job_manifest, service_manifest
from components.training_worker import _parse, worker_addresses
from model.training_config import StrategyConfig, TrainingConfig
from tests.kubernetes_schema import check_manifest

BY_HAND = Path(__file__).parents[1] / "kubeflow" / "manifests" / "training-job.yaml"
LARGE = TrainingJobSpec(
    image="registry.example:5000/team/gpt2:2.1",
    volume="workspace",
    mount_path="/data",
    workers=3,
    cpu=8,
    memory="64Gi",
    accelerator="nvidia.com/gpu",
    accelerators=2,
    restarts=4,
    environment={"NCCL_DEBUG": "INFO"},
    node_selector={"pool": "gpu"},
)


def container(job: dict[str, Any]) -> dict[str, Any]:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return container


@pytest.mark.parametrize("spec", [LARGE, TrainingJobSpec(image="gpt2:1", volume="claim")])
def test_the_manifests_are_right_by_kubernetes_models(spec):
    assert check_manifest(job_manifest("train", spec, "/data/task.json")) == []
    assert check_manifest(service_manifest("train")) == []
    assert check_manifest(service_manifest("train", owner="uid")) == []


def test_the_job_has_a_pod_for_each_worker_with_what_it_needs():
    job = job_manifest("train", LARGE, "/data/task.json")
    assert job["spec"]["completionMode"] == "Indexed"
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (3, 3)
    assert job["spec"]["backoffLimit"] == 12  # each restart ends three pods
    pod = job["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "workspace"
    assert container(job)["volumeMounts"] == [{"name": "workspace", "mountPath": "/data"}]
    assert container(job)["resources"] == {
        "limits": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "2"}
    }
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in container(job)["env"]


def test_the_service_gives_the_pods_the_names_that_the_workers_look_for(monkeypatch):
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    job, service = job_manifest("train", LARGE, "/data/task.json"), service_manifest("train")
    assert container(job)["command"] == ["python", "-m", "components.training_worker"]
    options = _parse(container(job)["args"])
    assert (options.task_file, options.index) == ("/data/task.json", 2)
    # Pod i of an Indexed Job has the host's name <job>-<i>, in the subdomain that is the Service.
    name, subdomain = job["metadata"]["name"], job["spec"]["template"]["spec"]["subdomain"]
    assert worker_addresses(options.hosts, options.workers, options.port) == [
        f"{name}-{index}.{subdomain}:{2222 + index}" for index in range(3)
    ]
    assert service["metadata"]["name"] == subdomain
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"job-name": name}


def test_only_failures_that_another_attempt_may_mend_are_tried_again():
    job = job_manifest("train", LARGE, "/data/task.json")
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"  # or rules are refused
    bad_input, disrupted, stopped = job["spec"]["podFailurePolicy"]["rules"]
    assert bad_input["action"] == "FailJob"
    assert bad_input["onExitCodes"]["values"] == [2]
    assert disrupted["action"] == stopped["action"] == "Ignore"
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert stopped["onExitCodes"]["values"] == [143]
    assert bad_input["onExitCodes"]["containerName"] == container(job)["name"]


def test_the_manifests_to_apply_by_hand_are_those_that_the_trainer_makes():
    spec = TrainingJobSpec(
        image="registry.example/gpt2-tfx:1.0", volume="gpt2-workspace", workers=2
    )
    task_file = "/workspace/training-jobs/gpt2-training/task.json"
    service, job = yaml.safe_load_all(BY_HAND.read_text())
    assert service == service_manifest("gpt2-training")
    assert job == job_manifest("gpt2-training", spec, task_file)


# --- the description ---


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("image", "registry/gpt2", "must be an image with a tag or digest"),
        ("image", "registry:5000/gpt2", "must be an image with a tag or digest"),
        ("image", "gpt2:1 2", "must be an image with a tag or digest"),
        ("volume", "My_Claim", "must be a PersistentVolumeClaim's name"),
        ("mount_path", "workspace", "must be an absolute path below /"),
        ("mount_path", "/", "must be an absolute path below /"),
        ("workers", 1, r"must be in \[2, 100\]"),
        ("restarts", -1, r"must be in \[0, 100\]"),
        ("cpu", "two", "must be an amount above zero"),
        ("cpu", 0, "must be an amount above zero"),
        ("memory", "8 GB", "must be an amount above zero"),
        ("accelerators", -1, "must be >= 0"),
        ("environment", {"A-B": "1"}, "must have variables' names as keys"),
    ],
)
def test_a_value_that_kubernetes_does_not_take_is_an_error_that_names_it(field, value, rule):
    fields = {"image": "gpt2:1", "volume": "claim"} | {field: value}
    with pytest.raises(ValueError, match=rf"^{field} {rule}"):
        TrainingJobSpec(**fields)


@pytest.mark.parametrize(
    "image",
    ["gpt2:1", "a.b:5000/c/d:1.0-x", f"a/b@sha256:{'0f' * 32}", f"a:1@sha256:{'0f' * 32}"],
)
def test_an_image_has_a_tag_or_a_digest(image):
    assert TrainingJobSpec(image=image, volume="claim").image == image


@pytest.mark.parametrize("fields", [{"accelerator": "nvidia.com/gpu"}, {"accelerators": 1}])
def test_an_accelerator_has_a_name_and_a_number(fields):
    with pytest.raises(ValueError, match="accelerator and accelerators must be given together"):
        TrainingJobSpec(image="gpt2:1", volume="claim", **fields)


def test_a_field_that_there_is_not_is_an_error():
    training = TrainingConfig(steps=200, strategy=StrategyConfig("multi_worker"))
    with pytest.raises(ValueError, match=r"job must hold .* unexpected keyword argument 'wrokers'"):
        read_spec({"image": "gpt2:1", "volume": "claim", "wrokers": 3}, training)


def test_the_batch_divides_over_workers_devices_and_accumulation():
    training = TrainingConfig(
        steps=200,
        global_batch_size=24,
        accumulation_steps=2,
        strategy=StrategyConfig("multi_worker"),
    )
    check_agreement(3, 0, training)
    check_agreement(3, 4, training)
    with pytest.raises(ValueError, match=r"must be a multiple of 16, which is 2 workers times 4 "):
        check_agreement(2, 4, training)
