"""Reads a compiled pipeline, as far as `kubeflow.simulate` can play it."""

import dataclasses
import json
import os
from graphlib import TopologicalSorter
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from kubeflow.pipeline_file import PipelineFile, read_pipeline_file


@dataclasses.dataclass(frozen=True)
class CompiledTask:
    """Describes a task, in the dictionaries of the file.

    Args:
        name: Its name.
        inputs: Where each artifact and parameter comes from.
        component: Its inputs' and outputs' definitions.
        container: What runs.
    """

    name: str
    inputs: dict[str, Any]
    component: dict[str, Any]
    container: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class CompiledPipeline:
    """Describes a pipeline.

    Args:
        file: The file that it is from.
        tasks: Each after those that it depends on.
    """

    file: PipelineFile
    tasks: list[CompiledTask]

    @property
    def defaults(self) -> dict[str, Any]:
        """The values of a run's parameters when it gives none, None for those without a default."""
        definitions = self.file.documents[0]["root"].get("inputDefinitions", {})
        parameters = definitions.get("parameters", {})
        return {name: spec.get("defaultValue") for name, spec in parameters.items()}


def read_compiled(path: str | os.PathLike[str]) -> CompiledPipeline:
    """Returns the pipeline in a YAML file.

    Raises:
        ValueError: The file is no compiled pipeline, or has a construct that can't be played here;
            the message names it and where it stands.
    """
    file = read_pipeline_file(os.fspath(path))
    spec, *platforms = file.documents
    try:
        # Which is a plain Struct to the message around it.
        deployment = pipeline_spec_pb2.PipelineDeploymentConfig()
        json_format.ParseDict(spec.get("deploymentSpec", {}), deployment)
        for platform in platforms:
            json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    except json_format.ParseError as error:
        raise ValueError(f"{file.path} is not a compiled pipeline: {error}") from error
    try:
        _check_platforms(platforms)
        return CompiledPipeline(file, _read_tasks(spec))
    except _UnknownError as error:
        raise ValueError(f"{file.path}: {error}") from error


class _UnknownError(Exception):
    """Names a construct that can't be played."""


def _read_tasks(spec: dict[str, Any]) -> list[CompiledTask]:
    _know(
        "the pipeline",
        spec,
        {"pipelineInfo", "schemaVersion", "sdkVersion", "root"}
        | {"components", "deploymentSpec", "defaultPipelineRoot"},
    )
    _know("root", spec["root"], {"dag", "inputDefinitions"})
    _know("root.inputDefinitions", spec["root"].get("inputDefinitions", {}), {"parameters"})
    dag = spec["root"]["dag"]
    _know("root.dag", dag, {"tasks"})
    tasks = {name: _read_task(name, task, spec) for name, task in dag["tasks"].items()}
    needs = {name: _needs(task, dag["tasks"][name]) for name, task in tasks.items()}
    missing = {need for names in needs.values() for need in names} - set(tasks)
    if missing:
        raise _UnknownError(f"tasks depend on {sorted(missing)}, which are no tasks")
    return [tasks[name] for name in TopologicalSorter(needs).static_order()]


def _needs(task: CompiledTask, compiled: dict[str, Any]) -> list[str]:
    sources = task.inputs.get("artifacts", {}).values()
    producers = {source["taskOutputArtifact"]["producerTask"] for source in sources}
    return sorted(producers | set(compiled.get("dependentTasks", [])))


def _read_task(name: str, task: dict[str, Any], spec: dict[str, Any]) -> CompiledTask:
    where = f"task {name}"
    played = {"componentRef", "dependentTasks", "inputs", "taskInfo"}
    # Each task is run once, and no task's output is taken from another run.
    without_effect = {"cachingOptions", "retryPolicy"}
    _know(where, task, played | without_effect)
    inputs = task.get("inputs", {})
    _know(f"{where}: inputs", inputs, {"artifacts", "parameters"})
    for key, source in inputs.get("artifacts", {}).items():
        _know(f"{where}: inputs.artifacts.{key}", source, {"taskOutputArtifact"})
    for key, source in inputs.get("parameters", {}).items():
        _know(
            f"{where}: inputs.parameters.{key}",
            source,
            {"runtimeValue", "componentInputParameter"},
        )
        _know(f"{where}: inputs.parameters.{key}", source.get("runtimeValue", {}), {"constant"})
    _check_training_job(where, inputs)
    component = spec["components"][task["componentRef"]["name"]]
    _know(where, component, {"executorLabel", "inputDefinitions", "outputDefinitions"})
    _know(f"{where}: outputs", component.get("outputDefinitions", {}), {"artifacts"})
    executor = spec["deploymentSpec"]["executors"][component["executorLabel"]]
    return CompiledTask(name, inputs, component, _read_container(where, executor))


def _check_training_job(where: str, inputs: dict[str, Any]) -> None:
    """Refuses a Trainer that would start pods on whatever cluster kubectl speaks to from here."""
    settings = inputs.get("parameters", {}).get("custom_config", {}).get("runtimeValue", {})
    try:
        job = json.loads(settings.get("constant", "null"))["job"]
    except (ValueError, TypeError, KeyError):
        return
    if job is not None:
        raise _UnknownError(
            f"{where}: inputs.parameters.custom_config: job is not known to the simulator, and "
            "would start pods on a cluster. Compile with --set kubeflow.training_job=null "
            "--set training.strategy.name=one_device, which trains in the task's own process"
        )


def _read_container(where: str, executor: dict[str, Any]) -> dict[str, Any]:
    _know(where, executor, {"container"})
    container = executor["container"]
    _know(f"{where}: container", container, {"image", "command", "args", "env", "resources"})
    for argument in [*container.get("command", []), *container.get("args", [])]:
        if "{{$" in argument.replace("{{$}}", ""):
            raise _UnknownError(f"{where}: placeholder {argument} is not known to the simulator")
    return container


def _check_platforms(platforms: list[dict[str, Any]]) -> None:
    # A volume is a folder here, and secrets are for real buckets.
    known = {"pvcMount", "emptyDirMounts", "secretAsEnv"}
    for document in platforms:
        _know("platforms", document["platforms"], {"kubernetes"})
        kubernetes = document["platforms"]["kubernetes"]
        _know("platforms.kubernetes", kubernetes, {"deploymentSpec"})
        for label, executor in kubernetes["deploymentSpec"]["executors"].items():
            _know(f"platforms.kubernetes: {label}", executor, known)


def _know(where: str, message: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(message) - known)
    if unknown:
        raise _UnknownError(f"{where}: {', '.join(unknown)} is not known to the simulator")
