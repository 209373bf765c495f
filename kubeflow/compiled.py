"""Reads a compiled pipeline, as far as `kubeflow.simulate` can play it."""

import dataclasses
import json
import os
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
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
        defaults: The values of a run's parameters when it gives none, None for those without a
            default.
    """

    file: PipelineFile
    tasks: list[CompiledTask]
    defaults: dict[str, Any]


def read_compiled(path: str | os.PathLike[str]) -> CompiledPipeline:
    """Returns the pipeline in a YAML file.

    Raises:
        ValueError: The file is no compiled pipeline, lacks something, or has a construct that can't
            be played here; the message names it and where it stands.
    """
    file = read_pipeline_file(os.fspath(path))
    try:
        # By way of the messages: what is null in the file is not there then, and all has its type.
        # This part is a plain Struct to the message around it.
        deployment = _through(
            pipeline_spec_pb2.PipelineDeploymentConfig(), file.spec.get("deploymentSpec", {})
        )
        platforms = [
            _through(pipeline_spec_pb2.PlatformSpec(), document) for document in file.platforms
        ]
    except json_format.ParseError as error:
        raise ValueError(f"{file.path} is not a compiled pipeline: {error}") from error
    try:
        for platform in platforms:
            _check_platform(platform)
        spec = file.spec | {"deploymentSpec": deployment}
        defaults = _defaults(spec)
        return CompiledPipeline(file, _read_tasks(spec, defaults), defaults)
    except _UnplayableError as error:
        raise ValueError(f"{file.path}: {error}") from error


def _through(message: Message, document: dict[str, Any]) -> dict[str, Any]:
    return json_format.MessageToDict(json_format.ParseDict(document, message))


class _UnplayableError(Exception):
    """Names a construct that can't be played, or what is missing."""


def _defaults(spec: dict[str, Any]) -> dict[str, Any]:
    parameters = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    return {name: definition.get("defaultValue") for name, definition in parameters.items()}


def _read_tasks(spec: dict[str, Any], run_parameters: dict[str, Any]) -> list[CompiledTask]:
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
        raise _UnplayableError(f"tasks depend on {sorted(missing)}, which are no tasks")
    for task in tasks.values():
        _check_sources(task, tasks, run_parameters)
    try:
        return [tasks[name] for name in TopologicalSorter(needs).static_order()]
    except CycleError as error:
        raise _UnplayableError(f"tasks wait for each other: {' -> '.join(error.args[1])}") from None


def _needs(task: CompiledTask, compiled: dict[str, Any]) -> list[str]:
    sources = task.inputs.get("artifacts", {}).values()
    producers = {source["taskOutputArtifact"]["producerTask"] for source in sources}
    return sorted(producers | set(compiled.get("dependentTasks", [])))


def _check_sources(
    task: CompiledTask, tasks: dict[str, CompiledTask], run_parameters: dict[str, Any]
) -> None:
    """Does nothing if what each of a task's inputs comes from is there."""
    for source in task.inputs.get("artifacts", {}).values():
        output = source["taskOutputArtifact"]
        made = tasks[output["producerTask"]].component.get("outputDefinitions", {})
        where = f"task {output['producerTask']}: outputs"
        _get(where, made.get("artifacts", {}), output["outputArtifactKey"])
    for source in task.inputs.get("parameters", {}).values():
        if "componentInputParameter" in source:
            where = "root.inputDefinitions.parameters"
            _get(where, run_parameters, source["componentInputParameter"])


def _read_task(name: str, task: dict[str, Any], spec: dict[str, Any]) -> CompiledTask:
    where = f"task {name}"
    played = {"componentRef", "dependentTasks", "inputs", "taskInfo"}
    # Each task is run once, and no task's output is taken from another run.
    without_effect = {"cachingOptions", "retryPolicy"}
    _know(where, task, played | without_effect)
    inputs = task.get("inputs", {})
    _check_inputs(f"{where}: inputs", inputs)
    name_there = _get(where, _get(where, task, "componentRef"), "name")
    component = _get("components", spec.get("components", {}), name_there)
    _know(where, component, {"executorLabel", "inputDefinitions", "outputDefinitions"})
    outputs = component.get("outputDefinitions", {})
    _know(f"{where}: outputs", outputs, {"artifacts"})
    for key, output in outputs.get("artifacts", {}).items():
        _get(f"{where}: outputs.{key}", output, "artifactType")
    label = _get(f"component {name_there}", component, "executorLabel")
    executor = _get("executors", spec["deploymentSpec"].get("executors", {}), label)
    return CompiledTask(name, inputs, component, _read_container(where, executor))


def _check_inputs(where: str, inputs: dict[str, Any]) -> None:
    _know(where, inputs, {"artifacts", "parameters"})
    for key, source in inputs.get("artifacts", {}).items():
        place = f"{where}.artifacts.{key}"
        _know(place, source, {"taskOutputArtifact"})
        output = _get(place, source, "taskOutputArtifact")
        for field in ("producerTask", "outputArtifactKey"):
            _get(place, output, field)
    for key, source in inputs.get("parameters", {}).items():
        place = f"{where}.parameters.{key}"
        _know(place, source, {"runtimeValue", "componentInputParameter"})
        if "componentInputParameter" not in source:
            value = _get(place, source, "runtimeValue")
            _know(place, value, {"constant"})
            constant = _get(place, value, "constant")
            if key == "custom_config":
                _check_training_job(place, constant)


def _check_training_job(where: str, settings: Any) -> None:
    """Refuses a Trainer that would start pods on whatever cluster kubectl speaks to from here."""
    try:
        job = json.loads(settings)["job"]
    except (ValueError, TypeError, KeyError):
        return
    if job is not None:
        raise _UnplayableError(
            f"{where}: job is not known to the simulator: it would start pods on a cluster. To "
            "train in the task's own process, compile with --set kubeflow.training_job=null --set "
            "training.strategy.name=one_device"
        )


def _read_container(where: str, executor: dict[str, Any]) -> dict[str, Any]:
    _know(where, executor, {"container"})
    container = _get(where, executor, "container")
    _know(f"{where}: container", container, {"image", "command", "args", "env", "resources"})
    for argument in [*_get(where, container, "command"), *container.get("args", [])]:
        if "{{$" in argument.replace("{{$}}", ""):
            raise _UnplayableError(f"{where}: placeholder {argument} is not known to the simulator")
    return container


def _check_platform(document: dict[str, Any]) -> None:
    # A volume is a folder here, and secrets are for real buckets.
    known = {"pvcMount", "emptyDirMounts", "secretAsEnv"}
    platforms = document.get("platforms", {})
    _know("platforms", platforms, {"kubernetes"})
    kubernetes = platforms.get("kubernetes", {})
    _know("platforms.kubernetes", kubernetes, {"deploymentSpec"})
    executors = kubernetes.get("deploymentSpec", {}).get("executors", {})
    for label, executor in executors.items():
        _know(f"platforms.kubernetes: {label}", executor, known)


def _get(where: str, message: Mapping[str, Any], key: str) -> Any:
    if key not in message:
        raise _UnplayableError(f"{where}: {key!r} is missing")
    return message[key]


def _know(where: str, message: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(message) - known)
    if unknown:
        raise _UnplayableError(f"{where}: {', '.join(unknown)} is not known to the simulator")
