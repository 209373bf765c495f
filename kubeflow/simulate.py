"""Runs a compiled pipeline on this machine, task by task, as Kubeflow's driver and launcher would.

The buckets and the volume are a folder. Each task runs its container's real command, in a process
of its own, with this Python in place of the image's, and of the run's artifacts it has the files of
those that it declares as inputs, as a pod has. What is played stands in the repository
kubeflow/pipelines, below backend/src/v2: driver/container.go gives a task its inputs and where its
outputs go, component/launcher_v2.go runs it, and an artifact's properties reach the next task as
metadata/converter.go has them.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from kubeflow.compiled import CompiledPipeline, CompiledTask
from kubeflow.mirror import VARIABLE, Mirror
from pipeline.kubeflow_config import check_bucket

# Of a failed task's log.
_LAST_LINES = 30


@dataclasses.dataclass(frozen=True)
class FinishedTask:
    """Says what a task came to.

    Args:
        name: Its name.
        seconds: How long it ran.
        log: The file of what it printed.
        outputs: Its artifacts, each with `uri` and `metadata`.
    """

    name: str
    seconds: float
    log: Path
    outputs: dict[str, dict[str, Any]]


class TaskError(RuntimeError):
    """A task has failed."""


def simulate(
    pipeline: CompiledPipeline,
    folder: str | os.PathLike[str],
    parameters: Mapping[str, Any] | None = None,
    pipeline_root: str = "",
) -> Iterator[FinishedTask]:
    """Runs the tasks in turn and yields each when it has ended.

    Args:
        pipeline: What `read_compiled` gave.
        folder: The folder that stands for the buckets, `<folder>/s3/<bucket>/...` and so on, and
            for the volume, `<folder>/workspace`. The tasks' logs are in `<folder>/logs`.
        parameters: The run's, see `kubeflow.pipeline_file.parameter_values`; the defaults for those
            that are not given.
        pipeline_root: The bucket's folder for artifacts; the one in the file when not given.

    Raises:
        ValueError: There is no pipeline root, or none that Kubeflow takes.
        TaskError: A task failed; the message has its log's end. None runs after it.
    """
    root = pipeline_root or pipeline.file.pipeline_root or ""
    check_bucket("pipeline root", root)
    values = pipeline.defaults | dict(parameters or {})
    folder = Path(folder).resolve()
    run_name = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    base = f"{root.rstrip('/')}/{pipeline.file.name}/{run_name}"
    artifacts: dict[tuple[str, str], dict[str, Any]] = {}
    numbers = itertools.count(1)
    for task in pipeline.tasks:
        begin = time.perf_counter()
        log = folder / "logs" / run_name / task.name / "log.txt"
        outputs = _run(task, log, base, values, artifacts, folder)
        for key, artifact in outputs.items():
            metadata = _through_the_metadata_store(artifact.get("metadata", {}))
            artifacts[task.name, key] = {
                "name": str(next(numbers)),
                "uri": artifact["uri"],
                "metadata": metadata | {"display_name": key},
            }
        yield FinishedTask(task.name, time.perf_counter() - begin, log, outputs)


def _run(
    task: CompiledTask,
    log: Path,
    base: str,
    values: dict[str, Any],
    artifacts: dict[tuple[str, str], dict[str, Any]],
    folder: Path,
) -> dict[str, dict[str, Any]]:
    """Runs a container's command and returns its outputs."""
    # In a pod this folder is the task's own.
    own = log.parent
    own.mkdir(parents=True)
    executor_input = _executor_input(task, base, values, artifacts, str(own / "output.json"))
    command = [*task.container["command"], *task.container.get("args", [])]
    command = [text.replace("{{$}}", json.dumps(executor_input)) for text in command]
    if command[0] == "python":
        command[0] = sys.executable
    with _pods_view(executor_input, base, Mirror(str(folder), is_all=True)), log.open("w") as file:
        status = subprocess.run(
            command,
            cwd=own,
            env=_environment(task.container, folder),
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if status:
        last_lines = "\n".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
        raise TaskError(
            f"{task.name} ended with exit code {status}; its log {log} ends:\n{last_lines}"
        )
    return _read_outputs(executor_input)


@contextlib.contextmanager
def _pods_view(executor_input: dict[str, Any], base: str, mirror: Mirror) -> Iterator[None]:
    """Has only a task's declared inputs in the run's folder while it runs, and keeps its outputs.

    As the launcher does, in files: it copies no empty folder, and makes only an output's parent.
    """
    view = Path(mirror.to_path(base))
    whole = view.with_name(f".{view.name}")
    view.mkdir(parents=True, exist_ok=True)
    view.rename(whole)
    inputs = [Path(mirror.to_path(uri)) for uri in _uris(executor_input["inputs"])]
    outputs = [Path(mirror.to_path(uri)) for uri in _uris(executor_input["outputs"])]
    try:
        for path in inputs:
            # An artifact that its task has moved elsewhere is there for all.
            if path.is_relative_to(view):
                _link_files(whole / path.relative_to(view), path)
        for path in outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in outputs:
            if path.exists():
                kept = whole / path.relative_to(view)
                kept.parent.mkdir(parents=True, exist_ok=True)
                path.rename(kept)
        shutil.rmtree(view)
        whole.rename(view)


def _uris(side: dict[str, Any]) -> list[str]:
    artifacts = side.get("artifacts", {}).values()
    return [artifact["uri"] for listed in artifacts for artifact in listed["artifacts"]]


def _link_files(source: Path, target: Path) -> None:
    for file in [source] if source.is_file() else source.rglob("*"):
        if file.is_file():
            linked = target / file.relative_to(source)
            linked.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, linked)


def _environment(container: dict[str, Any], folder: Path) -> dict[str, str]:
    # The image has our packages installed; here they are where this file is.
    ours = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH")]))
    own = {variable["name"]: variable.get("value", "") for variable in container.get("env", [])}
    return os.environ | own | {"PYTHONPATH": path, VARIABLE: str(folder)}


def _executor_input(
    task: CompiledTask,
    base: str,
    values: dict[str, Any],
    artifacts: dict[tuple[str, str], dict[str, Any]],
    output_file: str,
) -> dict[str, Any]:
    """Returns what the driver hands to the launcher; input artifacts have no type there."""
    parameters, inputs = {}, {}
    for key, source in task.inputs.get("parameters", {}).items():
        if "componentInputParameter" in source:
            parameters[key] = values[source["componentInputParameter"]]
        else:
            parameters[key] = source["runtimeValue"]["constant"]
    for key, source in task.inputs.get("artifacts", {}).items():
        output = source["taskOutputArtifact"]
        artifact = artifacts[output["producerTask"], output["outputArtifactKey"]]
        inputs[key] = {"artifacts": [artifact]}
    unique = uuid.uuid4().hex
    definitions = task.component.get("outputDefinitions", {}).get("artifacts", {})
    outputs = {
        key: {
            "artifacts": [
                {
                    "uri": f"{base}/{task.name}/{unique}/{key}",
                    "type": definition["artifactType"],
                    "metadata": definition.get("metadata", {}),
                }
            ]
        }
        for key, definition in definitions.items()
    }
    described = {
        "inputs": {"parameterValues": parameters, "artifacts": inputs},
        "outputs": {"artifacts": outputs, "outputFile": output_file},
    }
    # Through the message: what it does not know is an error, and numbers become what JSON has.
    message = json_format.ParseDict(described, pipeline_spec_pb2.ExecutorInput())
    return json_format.MessageToDict(message)


def _read_outputs(executor_input: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the task's artifacts, with what it wrote about them to the output file, if any."""
    path = Path(executor_input["outputs"]["outputFile"])
    output = pipeline_spec_pb2.ExecutorOutput()
    if path.exists():
        json_format.Parse(path.read_text(), output)
    outputs = {}
    for key, artifacts in executor_input["outputs"].get("artifacts", {}).items():
        (artifact,) = artifacts["artifacts"]
        written = json_format.MessageToDict(output.artifacts[key])
        (said,) = written.get("artifacts", [{}])
        outputs[key] = {
            "uri": said.get("uri", artifact["uri"]),
            "metadata": artifact.get("metadata", {}) | said.get("metadata", {}),
        }
    return outputs


def _through_the_metadata_store(metadata: dict[str, Any]) -> dict[str, Any]:
    """Returns an artifact's properties as the next task gets them.

    Raises:
        ValueError: There is a null, which the backend refuses.
    """
    stored: dict[str, Any] = {}
    for key, value in metadata.items():
        if value is None:
            raise ValueError(f"property {key} is null, which Kubeflow's metadata can't hold")
        if isinstance(value, bool):
            value = int(value)
        elif isinstance(value, list):
            value = {"list": value}
        elif isinstance(value, dict):
            value = {"struct": value}
        stored[key] = value
    return stored
