"""The configuration `tiny` as it is compiled for Kubeflow, and what stands where in that."""

import json
from typing import Any

from kubeflow.runner import compile_pipeline
from pipeline.config_file import load_config

IMAGE = "registry.example.com:5000/team/gpt2-tfx:1.0"
ROOT = "s3://bucket/pipelines"
TASKS = {
    "CorpusExampleGen",
    "StatisticsGen",
    "ImportSchemaGen",
    "ExampleValidator",
    "Transform",
    "Trainer",
    "BaselineModel",
    "Evaluator",
    "ServingCheck",
    "Pusher",
}


def compile_tiny(*overrides: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two documents, as they are after a trip through a file."""
    pipeline, platform = compile_pipeline(load_config("tiny", overrides), IMAGE, ROOT)
    return json.loads(json.dumps(pipeline)), json.loads(json.dumps(platform))


def tasks_of(pipeline: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return pipeline["root"]["dag"]["tasks"]


def container_of(pipeline: dict[str, Any], task: str) -> dict[str, Any]:
    label = pipeline["components"][task]["executorLabel"]
    return pipeline["deploymentSpec"]["executors"][label]["container"]


def parameter_of(pipeline: dict[str, Any], task: str, name: str) -> Any:
    return tasks_of(pipeline)[task]["inputs"]["parameters"][name]["runtimeValue"]["constant"]
