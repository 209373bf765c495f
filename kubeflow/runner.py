"""Compiles the pipeline to the one YAML file that Kubeflow Pipelines takes.

TFX's own runner writes the graph. What the open-source backend needs besides, and what that runner
leaves out, is put in afterwards: see `_finish`.
"""

import copy
import dataclasses
import hashlib
import json
import os
from importlib import resources
from typing import Any

import yaml
from kubernetes.utils.quantity import parse_quantity
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec
from tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner import (
    KubeflowV2DagRunner,
    KubeflowV2DagRunnerConfig,
)
from tfx.orchestration.pipeline import Pipeline

from components.start import PRODUCTION, SCRATCH
from kubeflow.compile_checks import check_components, check_run
from kubeflow.mirror import PACKAGE
from kubeflow.run_parameters import EXAMPLE_GEN, RUN_PARAMETERS
from model.staged_file import write_whole
from pipeline.config import PipelineConfig
from pipeline.graph import create_components
from pipeline.kubeflow_config import WORKSPACE, KubeflowConfig, check_place, is_in_bucket

# PyPI has a package `kubeflow` too. Ours is found beside it all the same, because the image
# installs both into one folder: kubeflow/entrypoint.py lies there whether or not an __init__.py
# does.
COMMAND = ["python", "-m", "kubeflow.entrypoint"]


def compile_pipeline(config: PipelineConfig, image: str, pipeline_root: str) -> list[Any]:
    """Returns the file's two YAML documents: the pipeline, and what is Kubernetes' own.

    Args:
        config: The run's. On the cluster `output` is the folder /workspace, and what paths there
            are in it begin there.
        image: The container image with this package, by tag or digest.
        pipeline_root: The bucket's folder that all artifacts go to.

    Raises:
        ValueError: The image, the folder, the pipeline's name or a setting is nothing that can run
            on Kubeflow.
    """
    config = _below_the_workspace(config)
    check_run(config, image, pipeline_root)
    serving_base = f"{_serving_folder(config.kubeflow, pipeline_root)}/{config.model_name}"
    # The weights to start from lie on the cluster, where they can't be listed from here.
    job = _training_job(config.kubeflow, image)
    components = create_components(config, serving_base, start_files=[], job=job)
    check_components(config.kubeflow, [component.id for component in components])
    spec = _run_tfxs_runner(config, components, image, pipeline_root)
    (example_gen,) = (node for node in components if node.id == EXAMPLE_GEN)
    if config.beam.is_elsewhere:
        _let_beams_workers_see(spec, components)
    _finish(spec, config, pipeline_root, serving_base, example_gen)
    return [spec, _platform_spec(spec, config.kubeflow)]


def _run_tfxs_runner(
    config: PipelineConfig, components: list[BaseComponent], image: str, pipeline_root: str
) -> dict[str, Any]:
    pipeline = Pipeline(
        pipeline_name=config.name,
        pipeline_root=pipeline_root,
        components=components,
        enable_cache=config.cache,
        beam_pipeline_args=config.beam.arguments(),
    )
    runner = KubeflowV2DagRunner(
        KubeflowV2DagRunnerConfig(
            default_image=image, default_commands=COMMAND, use_pipeline_spec_2_1=True
        )
    )
    return runner.run(pipeline, write_out=False)["pipelineSpec"]


def write_pipeline(documents: list[Any], path: str | os.PathLike[str]) -> None:
    """Writes the documents as YAML; the file is there whole or as it was before."""
    write_whole(path, yaml.safe_dump_all(documents, sort_keys=True))


def _below_the_workspace(config: PipelineConfig) -> PipelineConfig:
    """Returns the configuration with its paths as they are in a task's container.

    Raises:
        ValueError: One is a URI that Kubeflow does not open.
    """

    def place(field: str, path: str) -> str:
        check_place(field, path)
        return path if is_in_bucket(path) else os.path.join(WORKSPACE, path)

    start, data = config.start, config.data
    if start not in (SCRATCH, PRODUCTION):
        start = place("start", start)
    if data.path is not None:
        data = dataclasses.replace(data, path=place("data.path", data.path))
    return dataclasses.replace(config, output=WORKSPACE, start=start, data=data)


def _serving_folder(config: KubeflowConfig, pipeline_root: str) -> str:
    """Returns where pushed models outlive the pod that pushed them."""
    if config.serving_folder:
        return config.serving_folder.rstrip("/")
    return f"{WORKSPACE if config.volume else pipeline_root.rstrip('/')}/serving"


def _training_job(config: KubeflowConfig, image: str) -> dict[str, Any] | None:
    """Returns what the Trainer is told about the pods that train in place of its own, if any."""
    if config.training_job is None or config.volume is None:  # the first is not without the second
        return None
    try:
        return config.training_job.fields(image, config.volume, WORKSPACE, config.environment)
    except ValueError as error:
        raise ValueError(f"kubeflow.training_job: {error}") from error


def _finish(
    spec: dict[str, Any],
    config: PipelineConfig,
    pipeline_root: str,
    serving_base: str,
    example_gen: BaseComponent,
) -> None:
    """Puts into the pipeline what the open-source backend needs and TFX's runner leaves out."""
    tasks = spec["root"]["dag"]["tasks"]
    # Not read by every backend's version: whoever submits the file gives it, too.
    spec["defaultPipelineRoot"] = pipeline_root
    for name, task in tasks.items():
        task["retryPolicy"] = {
            "maxRetryCount": config.kubeflow.retries,
            "backoffDuration": "30s",
            "backoffFactor": 2.0,
            "backoffMaxDuration": "3600s",
        }
        container = _container(spec, name)
        container["resources"] = _resources(config.kubeflow, name)
        container["env"] = [
            {"name": name, "value": value}
            for name, value in sorted(config.kubeflow.environment.items())
        ]
        for value in task["inputs"].get("parameters", {}).values():
            value["runtimeValue"]["constant"] = _without_our_paths(
                value["runtimeValue"]["constant"]
            )
    _run_the_driver_in_the_pod(spec, example_gen)
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    _add_input(spec, EXAMPLE_GEN, "serving_folder", "STRING", {"constant": serving_base})
    _add_input(spec, EXAMPLE_GEN, "pipeline_digest", "STRING", {"constant": digest})
    _add_run_parameters(spec, config)


def _container(spec: dict[str, Any], task: str) -> dict[str, Any]:
    label = spec["components"][task]["executorLabel"]
    return spec["deploymentSpec"]["executors"][label]["container"]


def _resources(config: KubeflowConfig, component: str) -> dict[str, Any]:
    """Returns what a container asks for, in the schema's words and in those that it had before.

    A backend before 2.4.0 reads the older ones only, and without them gives the container nothing
    it asked for (kubeflow/pipelines issues 11374 and 11390); a later one reads the first.
    """
    wanted = config.resources_of(component)
    resources: dict[str, Any] = {}
    # The older ones are numbers: cores, and 10^9 bytes.
    for kind, quantity, unit in (("Cpu", wanted.cpu, 1), ("Memory", wanted.memory, 10**9)):
        # Asked for and held to the same: a pod that uses what it did not ask for is the first that
        # a full node ends.
        for role in ("Request", "Limit"):
            resources[f"resource{kind}{role}"] = quantity
            resources[f"{kind.lower()}{role}"] = float(parse_quantity(quantity) / unit)
    if wanted.accelerator:
        resources["accelerator"] = {
            "resourceType": wanted.accelerator,
            "resourceCount": str(wanted.accelerators),
            "type": wanted.accelerator,
            "count": str(wanted.accelerators),  # 64 bits, which are text in JSON
        }
    return resources


def _without_our_paths(value: Any) -> Any:
    """Returns a parameter's value with `package:data/...` for files that come with the code."""
    folder = str(resources.files("data"))
    if isinstance(value, str) and (value == folder or value.startswith(folder + os.sep)):
        return f"{PACKAGE}data{value[len(folder) :]}"
    return value


def _let_beams_workers_see(spec: dict[str, Any], components: list[BaseComponent]) -> None:
    """Has what runs on Beam work in the bucket itself, not in the pod's mirror of it."""
    for node in components:
        if isinstance(node.executor_spec, BeamExecutorSpec):
            _container(spec, node.id)["args"].append("--keep_gs_uris")


def _run_the_driver_in_the_pod(spec: dict[str, Any], example_gen: BaseComponent) -> None:
    """Has the entry point run ExampleGen's driver, and has each run look at the data anew.

    The backend ignores `lifecycle`, which is where TFX's runner puts the driver. Without one an
    unchanged path would be found in the cache, whatever lies there by now.
    """
    container = _container(spec, example_gen.id)
    del container["lifecycle"]
    driver = example_gen.DRIVER_CLASS
    container["args"] += ["--driver_class_path", f"{driver.__module__}.{driver.__qualname__}"]
    spec["root"]["dag"]["tasks"][example_gen.id]["cachingOptions"] = {"enableCache": False}


def _add_run_parameters(spec: dict[str, Any], config: PipelineConfig) -> None:
    root = spec["root"].setdefault("inputDefinitions", {}).setdefault("parameters", {})
    for parameter in RUN_PARAMETERS:
        if not parameter.is_in_force(config):
            continue
        root[parameter.name] = {
            "parameterType": parameter.kind,
            "defaultValue": _without_our_paths(parameter.default(config)),
        }
        source = {"componentInputParameter": parameter.name}
        if parameter.replaces:
            task = spec["root"]["dag"]["tasks"][parameter.task]
            task["inputs"]["parameters"][parameter.replaces] = source
        else:
            _add_input(spec, parameter.task, parameter.name, parameter.kind, source)
        if parameter.task != EXAMPLE_GEN:
            # For it to tell whether this run is another than the last one.
            _add_input(spec, EXAMPLE_GEN, parameter.name, parameter.kind, dict(source))


def _add_input(
    spec: dict[str, Any], task: str, name: str, kind: str, source: dict[str, Any]
) -> None:
    """Gives a task one more parameter, from a constant or from the run's own parameter."""
    inputs = spec["components"][task]["inputDefinitions"]["parameters"]
    inputs[name] = {"parameterType": kind}
    if "constant" in source:
        source = {"runtimeValue": source}
    spec["root"]["dag"]["tasks"][task]["inputs"]["parameters"][name] = source


def _platform_spec(spec: dict[str, Any], config: KubeflowConfig) -> dict[str, Any]:
    """Returns what kfp-kubernetes would add to the file: the volume, and the buckets' secret."""
    pod: dict[str, Any] = {}
    if config.volume:
        pod["pvcMount"] = [{"constant": config.volume, "mountPath": WORKSPACE}]
    else:
        pod["emptyDirMounts"] = [{"volumeName": "workspace", "mountPath": WORKSPACE}]
    if config.bucket_secret:
        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        pod["secretAsEnv"] = [
            {
                "secretName": config.bucket_secret,
                "keyToEnv": [{"secretKey": key, "envVar": key} for key in keys],
            }
        ]
    # Copies, as YAML would write the same object as a reference to the first.
    executors = {label: copy.deepcopy(pod) for label in spec["deploymentSpec"]["executors"]}
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}
