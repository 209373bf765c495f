"""The commands `gpt2-tfx kubeflow ...`."""

import argparse
from typing import TYPE_CHECKING, Any

from pipeline.native_messages import start_tensorflow
from pipeline.schedule_commands import add_schedule_parsers

if TYPE_CHECKING:
    from kubeflow.simulate import FinishedTask


def add_kubeflow_parsers(
    commands: Any, configured: argparse.ArgumentParser, common: argparse.ArgumentParser
) -> None:
    """Adds `kubeflow`, with what stands below it, to the command line's subparsers.

    Args:
        commands: What `ArgumentParser.add_subparsers` gave.
        configured: The parser of options of commands that read a configuration.
        common: The parser of options that every command has.
    """
    description = "Run the pipeline on Kubeflow Pipelines."
    kubeflow = commands.add_parser("kubeflow", help=description, description=description)
    actions = kubeflow.add_subparsers(required=True, metavar="ACTION")

    description = "Compile the pipeline to a YAML file for Kubeflow Pipelines."
    added = actions.add_parser(
        "compile", parents=[configured], help=description, description=description
    )
    added.add_argument(
        "--image", required=True, help="container image with this package, with tag or digest"
    )
    added.add_argument(
        "--pipeline-root",
        required=True,
        metavar="URI",
        help="where artifacts go: gs://BUCKET/..., s3://BUCKET/... or minio://BUCKET/...",
    )
    added.add_argument("--output", required=True, metavar="FILE", help="YAML file to be written")
    added.set_defaults(command=_compile)

    description = (
        "Run a compiled pipeline here, task by task, each by its container's command, with a "
        "folder in place of the buckets."
    )
    added = actions.add_parser(
        "simulate", parents=[common], help=description, description=description
    )
    added.add_argument("file", metavar="FILE", help="what `compile` wrote")
    added.add_argument(
        "--buckets", required=True, metavar="FOLDER", help="stands for the buckets and the volume"
    )
    added.add_argument(
        "--parameter",
        action="append",
        default=[],
        metavar="name=value",
        help="a run's parameter, if not its default; may be given again",
    )
    added.add_argument(
        "--pipeline-root", default="", metavar="URI", help="if not the one that is in the file"
    )
    added.set_defaults(command=_simulate)
    add_schedule_parsers(actions, common)


def _compile(options: argparse.Namespace) -> None:
    from pipeline.config_file import load_config

    config = load_config(options.config, options.set)
    start_tensorflow()
    from kubeflow.runner import compile_pipeline, write_pipeline

    documents = compile_pipeline(config, options.image, options.pipeline_root)
    write_pipeline(documents, options.output)
    tasks = documents[0]["root"]["dag"]["tasks"]
    print(f"wrote {options.output}: pipeline {config.name}, {len(tasks)} tasks")


def _simulate(options: argparse.Namespace) -> None:
    from kubeflow.compiled import read_compiled
    from kubeflow.pipeline_file import parameter_values
    from kubeflow.simulate import simulate

    pipeline = read_compiled(options.file)
    parameters = parameter_values(pipeline.file, options.parameter)
    for task in simulate(pipeline, options.buckets, parameters, options.pipeline_root):
        print(f"{task.name:<18} {task.seconds:6.1f} s   {remark_on(task)}".rstrip(), flush=True)
    print(f"logs               {task.log.parent.parent}")


def remark_on(task: "FinishedTask") -> str:
    """Returns what came of a task, as far as it decides something."""
    from kubeflow.new_data import NO_NEW_DATA

    metadata: dict[str, Any] = {}
    for output in task.outputs.values():
        metadata |= output["metadata"]
    if NO_NEW_DATA in metadata:
        return "no new data: nothing to do"
    if metadata.get("blessed") in (0, 1):  # the ExampleValidator's is for each split
        return "blessed" if metadata["blessed"] else f"not blessed: see {task.log}"
    if "pushed" in metadata:
        return (
            f"pushed {metadata['pushed_destination']}"
            if metadata["pushed"] == 1
            else "nothing pushed"
        )
    return ""
