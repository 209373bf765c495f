"""The command of each of the pipeline's containers: runs one TFX component's executor.

    python -m kubeflow.entrypoint --executor_class_path ... (what TFX's Kubeflow runner compiles)

TFX's own entry point, which this calls in the end, was made for Vertex AI. Kubeflow's open-source
backend differs, and what it does not do is done here: it gives artifacts no types, runs no driver,
and keeps buckets' contents in folders.
"""

import argparse
import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging as absl_logging

from kubeflow import new_data
from kubeflow.mirror import Mirror, find_text, map_texts
from pipeline.kubeflow_config import is_in_bucket

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a task, given as the launcher gives it; an error is an exception.

    Args:
        arguments: TFX's, with the launcher's ExecutorInput in JSON in place of `{{$}}`; what is
            unknown is Beam's.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--executor_class_path", required=True)
    parser.add_argument("--json_serialized_invocation_args", required=True)
    parser.add_argument("--json_serialized_inputs_spec_args", required=True)
    parser.add_argument("--driver_class_path", help="the example generator's")
    parser.add_argument(
        "--keep_gs_uris", action="store_true", help="for Beam's workers on other machines"
    )
    options, beam_arguments = parser.parse_known_args(arguments)
    absl_logging.use_absl_handler()
    absl_logging.set_verbosity(absl_logging.INFO)
    run_task(options, beam_arguments, Mirror.of_this_process())


def run_task(options: argparse.Namespace, beam_arguments: list[str], mirror: Mirror) -> None:
    """Runs a task and writes its ExecutorOutput.

    Args:
        options: As the command line gives them.
        beam_arguments: Those of Beam's command line.
        mirror: Says where the task finds what lies in buckets.
    """
    task = json.loads(options.json_serialized_invocation_args)
    add_types(task, json.loads(options.json_serialized_inputs_spec_args))
    passed_on = new_data.read_inherited(task)
    if new_data.NO_NEW_DATA in passed_on:
        _end_early(task, mirror, passed_on)
    else:
        _work(task, options, beam_arguments, mirror, passed_on)


def _work(
    task: dict[str, Any],
    options: argparse.Namespace,
    beam_arguments: list[str],
    mirror: Mirror,
    passed_on: dict[str, Any],
) -> None:
    # Not at the top: TensorFlow and Beam come with them, and nothing to do should take no time.
    from kubeflow import buckets, exchange
    from kubeflow.data_driver import resolve_data
    from kubeflow.run_parameters import apply_run_parameters

    buckets.set_options(beam_arguments)
    given = task["inputs"].setdefault("parameterValues", {})
    may_end_early, serving_base, version = _take_ours(given, bool(options.driver_class_path))
    apply_run_parameters(given)
    exchange.fetch(given, mirror)
    seen = dataclasses.replace(mirror, keeps_gs=options.keep_gs_uris and not mirror.is_all)
    local = map_texts(task, seen.to_path)
    if options.driver_class_path:
        found = resolve_data(options.driver_class_path, local, given["input_base"], seen)
        passed_on = {new_data.DATA_VERSION: json.dumps({"data": found} | version)}
        last = new_data.read_last_data(serving_base, mirror) if may_end_early else None
        if last == passed_on[new_data.DATA_VERSION]:
            _end_early(task, mirror, passed_on | {new_data.NO_NEW_DATA: "true"})
            return
    _make_folders(local)
    changed = vars(options) | {"json_serialized_invocation_args": json.dumps(local)}
    _run_executor(argparse.Namespace(**changed), beam_arguments)
    exchange.bring_back(given, mirror)
    written = _finish_output(task["outputs"], mirror, passed_on)
    _say_why_not_blessed(local["outputs"], written)
    destination = find_text(given, "base_directory")
    if destination and new_data.DATA_VERSION in passed_on:
        new_data.write_last_data(destination, mirror, passed_on[new_data.DATA_VERSION])


def _take_ours(given: dict[str, Any], is_generator: bool) -> tuple[bool, str, dict[str, Any]]:
    """Takes out of a task's parameters what is the entry point's own.

    Returns:
        Whether the run may end early; the served model's folder; and what makes a run another one
        on the same data. Those are the example generator's.
    """
    from kubeflow.run_parameters import take_others

    if not is_generator:
        return False, "", {}
    return (
        given.pop("skip_without_new_data", False),
        given.pop("serving_folder", ""),
        {"pipeline": given.pop("pipeline_digest", None), "parameters": take_others(given)},
    )


def add_types(task: dict[str, Any], inputs_spec: dict[str, Any]) -> None:
    """Gives the input artifacts their types, which TFX's executors need, and names."""
    for name, artifacts in task["inputs"].get("artifacts", {}).items():
        for artifact in artifacts["artifacts"]:
            artifact["type"] = inputs_spec["artifacts"][name]["artifactType"]
            # The evaluator tells models apart by their names.
            artifact.setdefault("name", artifact["uri"])


def _make_folders(task: dict[str, Any]) -> None:
    """Makes each output's folder, as TFX's own runners do; the launcher makes its parent only."""
    for artifacts in task["outputs"].get("artifacts", {}).values():
        for artifact in artifacts["artifacts"]:
            if not is_in_bucket(artifact["uri"]):
                Path(artifact["uri"]).mkdir(parents=True, exist_ok=True)


def _run_executor(options: argparse.Namespace, beam_arguments: list[str]) -> None:
    # Not at the top: this is all of TFX.
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

    kubeflow_v2_run_executor.main((options, beam_arguments))


def _finish_output(
    outputs: dict[str, Any], mirror: Mirror, passed_on: dict[str, Any]
) -> dict[str, Any]:
    """Has the ExecutorOutput name buckets again, and adds to each artifact what is passed on.

    Returns:
        The ExecutorOutput.
    """
    path = Path(outputs["outputFile"])
    written = map_texts(json.loads(path.read_text()), mirror.to_uri)
    for artifacts in written.get("artifacts", {}).values():
        for artifact in artifacts["artifacts"]:
            metadata = artifact.get("metadata", {}) | passed_on
            # TFX writes null for what was not set, an error to the launcher.
            artifact["metadata"] = {k: v for k, v in metadata.items() if v is not None}
    path.write_text(json.dumps(written))
    return written


def _say_why_not_blessed(outputs: dict[str, Any], written: dict[str, Any]) -> None:
    """Logs which thresholds a model has failed, if the task has evaluated one that did."""
    if "evaluation" not in outputs.get("artifacts", {}):
        return
    (blessing,) = written["artifacts"]["blessing"]["artifacts"]
    if not blessing["metadata"]["blessed"]:
        # Not at the top: TFMA comes with it.
        from pipeline.summary import read_failures

        (evaluation,) = outputs["artifacts"]["evaluation"]["artifacts"]
        for reason in read_failures(evaluation["uri"]):
            _log.warning("not blessed: %s", reason)


def _end_early(task: dict[str, Any], mirror: Mirror, passed_on: dict[str, Any]) -> None:
    """Writes outputs that hold nothing but the mark, and says so."""
    _log.warning("no new data since the last run: nothing to do")
    outputs = task["outputs"]
    marked: dict[str, Any] = {}
    for name, artifacts in outputs.get("artifacts", {}).items():
        (artifact,) = artifacts["artifacts"]
        folder = Path(mirror.to_path(artifact["uri"]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / new_data.NO_NEW_DATA).touch()
        marked[name] = {"artifacts": [{"uri": artifact["uri"], "metadata": passed_on}]}
    path = Path(outputs["outputFile"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"artifacts": marked}))


if __name__ == "__main__":
    main()
