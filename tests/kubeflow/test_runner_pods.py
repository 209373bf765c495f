"""kubeflow/runner.py: what each task's pod asks for and is given."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import compiler, dsl
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig

from tests.compiled_tiny import IMAGE, TASKS, compile_tiny, container_of, tasks_of


@pytest.fixture(scope="module")
def full() -> tuple[dict[str, Any], dict[str, Any]]:
    """With all that the configuration may say about Kubeflow."""
    return compile_tiny(
        "kubeflow.volume=gpt2-data",
        "kubeflow.bucket_secret=bucket-keys",
        "kubeflow.environment={AWS_ENDPOINT_URL: 'http://minio:9000'}",
        "kubeflow.retries=5",
        "kubeflow.resources.default={cpu: 1, memory: 2Gi}",
        "kubeflow.resources.Trainer={cpu: 6, memory: 24Gi, accelerator: nvidia.com/gpu, "
        "accelerators: 2}",
    )


def test_each_task_is_tried_again_as_often_as_configured(full):
    for pipeline, retries in ((compile_tiny()[0], 2), (full[0], 5)):
        assert {task["retryPolicy"]["maxRetryCount"] for task in tasks_of(pipeline).values()} == {
            retries
        }


def by_kfps_compiler(cpu: str, memory: str, accelerators: int, path: Path) -> dict[str, Any]:
    """The resources that kfp's own compiler writes."""

    @dsl.container_component
    def train() -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image=IMAGE)

    @dsl.pipeline(name="gpt2")
    def pipeline() -> None:
        task = train()
        task.set_cpu_request(cpu).set_cpu_limit(cpu)
        task.set_memory_request(memory).set_memory_limit(memory)
        if accelerators:
            task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(accelerators)

    compiler.Compiler().compile(pipeline, str(path))
    document = yaml.safe_load(path.read_text())
    return document["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]


def test_each_component_asks_for_its_resources_as_kfps_compiler_writes_it(full, tmp_path):
    pipeline, _ = full
    path = tmp_path / "kfp.yaml"
    resources = container_of(pipeline, "Trainer")["resources"]
    assert resources == by_kfps_compiler("6", "24Gi", 2, path)
    # What backends from 2.4.0 on read, and what those before it did.
    assert (resources["resourceMemoryLimit"], resources["memoryLimit"]) == ("24Gi", 25.769803776)
    assert (resources["resourceCpuRequest"], resources["cpuRequest"]) == ("6", 6.0)
    for task in TASKS - {"Trainer"}:
        assert container_of(pipeline, task)["resources"] == by_kfps_compiler("1", "2Gi", 0, path)


@pytest.mark.parametrize(("cpu", "memory"), [("500m", "512Mi"), ("0.5", "1000000000"), (2, "3M")])
def test_quantities_are_numbers_to_old_backends(cpu, memory, tmp_path):
    overrides = [f"kubeflow.resources.default={{cpu: {cpu}, memory: {memory}}}"]
    container = container_of(compile_tiny(*overrides)[0], "Pusher")
    expected = by_kfps_compiler(str(cpu), memory, 0, tmp_path / "kfp.yaml")
    assert container["resources"] == expected


@pytest.mark.parametrize("volume", ["null", "gpt2-data"])
def test_what_is_kubernetes_own_is_in_kfps_own_terms(volume):
    _, platform = compile_tiny(f"kubeflow.volume={volume}", "kubeflow.bucket_secret=bucket-keys")
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for executor in executors.values():
        json_format.ParseDict(executor, KubernetesExecutorConfig())  # refuses an unknown field


def test_every_task_has_the_volume_the_keys_and_the_environment(full):
    pipeline, platform = full
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(executors) == set(pipeline["deploymentSpec"]["executors"])
    for executor in executors.values():
        assert executor == {
            "pvcMount": [{"constant": "gpt2-data", "mountPath": "/workspace"}],
            "secretAsEnv": [
                {
                    "secretName": "bucket-keys",
                    "keyToEnv": [
                        {"secretKey": "AWS_ACCESS_KEY_ID", "envVar": "AWS_ACCESS_KEY_ID"},
                        {"secretKey": "AWS_SECRET_ACCESS_KEY", "envVar": "AWS_SECRET_ACCESS_KEY"},
                    ],
                }
            ],
        }
    for task in TASKS:
        assert container_of(pipeline, task)["env"] == [
            {"name": "AWS_ENDPOINT_URL", "value": "http://minio:9000"}
        ]


def test_without_a_volume_each_task_has_an_empty_workspace():
    _, platform = compile_tiny()
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for executor in executors.values():
        assert executor == {
            "emptyDirMounts": [{"volumeName": "workspace", "mountPath": "/workspace"}]
        }
