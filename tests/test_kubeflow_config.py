"""pipeline/kubeflow_config.py: what a configuration says about Kubeflow, checked when read."""

import re

import pytest
from kubernetes.utils.quantity import parse_quantity

from pipeline.config_file import load_config
from pipeline.kubeflow_config import ResourcesConfig


@pytest.mark.parametrize(
    "quantity", ["1", "0.5", ".5", "2.", "500m", "100n", "3k", "8Gi", "512M", "1.5Ti", "1e3", "2E6"]
)
def test_a_quantity_that_kubernetes_reads_is_taken_as_it_is(quantity):
    assert ResourcesConfig(cpu=quantity).cpu == ResourcesConfig(memory=quantity).memory == quantity
    assert parse_quantity(quantity) > 0


@pytest.mark.parametrize(
    "quantity",
    ["", "two", "8 Gi", "8GB", "8gi", "Gi", "-1", "0", "0.0Gi", "1_000", "NaN", "Infinity", "٣"],
)
def test_what_is_no_quantity_above_zero_is_an_error_with_field_and_value(quantity):
    for field in ("cpu", "memory"):
        with pytest.raises(
            ValueError, match=f"^{field} must be .* got {re.escape(repr(quantity))}$"
        ):
            ResourcesConfig(**{field: quantity})


def test_numbers_in_the_file_are_quantities_too():
    config = load_config("tiny", ["kubeflow.resources.Trainer={cpu: 0.5, memory: 1000000}"])
    assert config.kubeflow.resources_of("Trainer") == ResourcesConfig(cpu="0.5", memory="1000000")


def test_a_component_without_resources_of_its_own_has_those_of_default():
    config = load_config("tiny", ["kubeflow.resources={default: {cpu: 3}, Trainer: {cpu: 4}}"])
    of = config.kubeflow.resources_of
    assert (of("Trainer").cpu, of("Evaluator").cpu, of("Evaluator").memory) == ("4", "3", "8Gi")
    assert load_config("tiny").kubeflow.resources_of("Trainer").cpu == "2"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("resources.Trainer.cpu=lots", "resources.Trainer: cpu must be an amount above zero as"),
        ("resources.Trainer.gpu=1", "resources.Trainer.gpu: unknown key"),
        ("resources.Trainer.accelerators=1", "resources.Trainer: accelerator and accelerators"),
        (
            "resources.Trainer={accelerator: nvidia.com/gpu}",
            "resources.Trainer: accelerator and accelerators must be given together, "
            "got 'nvidia.com/gpu' and 0",
        ),
        (
            "resources.Trainer={accelerator: T4, accelerators: 1}",
            "resources.Trainer: accelerator must be a resource's name such as nvidia.com/gpu, "
            "got 'T4'",
        ),
        ("volume=My_Claim", "volume must be a Kubernetes object's name"),
        ("bucket_secret=-x", "bucket_secret must be a Kubernetes object's name"),
        ("serving_folder=/models", "serving_folder must be gs://BUCKET/..., s3://BUCKET/... or"),
        ("serving_folder=azure://models", "serving_folder must be gs://BUCKET/..., s3://BUCKET"),
        (
            "training_job={workers: 2}",
            "kubeflow: volume must be given where training_job is: the workers and the Trainer "
            "share what is on it",
        ),
        ("training_job={volume: other}", "training_job.volume: unknown key (value 'other')"),
        ("training_job={workers: 1}", "training_job: workers must be in [2, 100], got 1"),
        ("retries=-1", "retries must be in [0, 100], got -1"),
        ("environment={A-B: x}", "environment must have variables' names as keys, got 'A-B'"),
        ("environment={1A: x}", "environment must have variables' names as keys, got '1A'"),
    ],
)
def test_a_bad_value_is_told_by_key_value_and_rule(override, problem):
    with pytest.raises(ValueError, match=re.escape(problem)) as failure:
        load_config("tiny", [f"kubeflow.{override}"])
    assert "does not describe a run" in str(failure.value)


def test_several_workers_need_a_strategy_for_several():
    with pytest.raises(ValueError, match=r"training\.strategy\.name must be 'multi_worker' where"):
        load_config("tiny", ["kubeflow.volume=claim", "kubeflow.training_job={workers: 2}"])
