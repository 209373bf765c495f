"""The commands `gpt2-tfx kubeflow ...`."""

import argparse
from typing import Any

from pipeline.native_messages import start_tensorflow


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


def _compile(options: argparse.Namespace) -> None:
    from pipeline.config_file import load_config

    config = load_config(options.config, options.set)
    start_tensorflow()
    from kubeflow.runner import compile_pipeline, write_pipeline

    documents = compile_pipeline(config, options.image, options.pipeline_root)
    write_pipeline(documents, options.output)
    tasks = documents[0]["root"]["dag"]["tasks"]
    print(f"wrote {options.output}: pipeline {config.name}, {len(tasks)} tasks")
