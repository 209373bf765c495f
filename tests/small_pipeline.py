"""A compiled pipeline of two small scripts, for tests of what reads and plays one."""

import copy
from pathlib import Path
from typing import Any

import yaml

from kubeflow.compiled import read_compiled
from kubeflow.simulate import FinishedTask, simulate

ROOT = "s3://bucket/root"
TYPE = {"instanceSchema": "title: tfx.Model\ntype: object\n"}

# Writes what it was given into its output's folder, and properties into the output file.
RECORD = """
import json, os, sys
task, root = json.loads(sys.argv[1]), os.environ["GPT2_TFX_BUCKETS"]
(artifact,) = task["outputs"]["artifacts"]["out"]["artifacts"]
folder = artifact["uri"].replace("s3://", root + "/s3/")
assert os.path.isdir(os.path.dirname(folder)) and not os.path.exists(folder)
os.mkdir(folder)
with open(folder + "/task.json", "w") as file:
    json.dump({"task": task, "environment": dict(os.environ), "argv": sys.argv}, file)
properties = {"number": 3, "flag": True, "text": "x", "list": [1], "struct": {"a": "b"}}
with open(task["outputs"]["outputFile"], "w") as file:
    json.dump({"artifacts": {"out": {"artifacts": [{"metadata": properties}]}}}, file)
"""


def task(name: str, inputs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "componentRef": {"name": name},
        "taskInfo": {"name": name},
        "inputs": inputs or {},
    } | more


def after(producer: str) -> dict[str, Any]:
    source = {"producerTask": producer, "outputArtifactKey": "out"}
    return {"artifacts": {"model": {"taskOutputArtifact": source}}}


def container(script: str) -> dict[str, Any]:
    return {
        "container": {
            "image": "image:1",
            "command": ["python", "-c", script],
            "args": ["{{$}}", "an argument"],
            "env": [{"name": "COLOUR", "value": "blue"}],
        }
    }


def pipeline() -> dict[str, Any]:
    """Two tasks, in the file in the wrong order."""
    parameters = {
        "given": {"componentInputParameter": "steps"},
        "fixed": {"runtimeValue": {"constant": 5}},
        "text": {"runtimeValue": {"constant": "{{no placeholder}}"}},
    }
    output = {"artifacts": {"out": {"artifactType": TYPE, "metadata": {"known": "before"}}}}
    return {
        "pipelineInfo": {"name": "small"},
        "schemaVersion": "2.1.0",
        "sdkVersion": "tfx-1.21.0",
        "defaultPipelineRoot": ROOT,
        "components": {
            name: {"executorLabel": f"{name}_executor", "outputDefinitions": copy.deepcopy(output)}
            for name in ("a_second", "z_first")
        },
        "deploymentSpec": {
            "executors": {f"{name}_executor": container(RECORD) for name in ("a_second", "z_first")}
        },
        "root": {
            "dag": {
                "tasks": {
                    "a_second": task("a_second", after("z_first")),
                    "z_first": task("z_first", {"parameters": parameters}),
                }
            },
            "inputDefinitions": {
                "parameters": {"steps": {"parameterType": "NUMBER_INTEGER", "defaultValue": 60}}
            },
        },
    }


def write(folder: Path, *documents: dict[str, Any]) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return path


def play(folder: Path, document: dict[str, Any], **parameters: Any) -> list[FinishedTask]:
    compiled = read_compiled(write(folder, document))
    return list(simulate(compiled, folder / "buckets", parameters))
