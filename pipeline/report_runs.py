"""Reads what each run came to, as far as it got, for the report."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.dsl.io import fileio

from components import baseline, corpus_counts, serving_check, trainer
from components.evaluation import BASELINE, CANDIDATE, PART, SOURCE
from pipeline.config import PipelineConfig
from pipeline.lineage import Node, Run, properties, read_runs
from pipeline.run_report import RunReport, SliceScore, Step
from pipeline.summary import custom_int, read_failures, read_json, read_metrics, read_text

# What `gpt2-tfx run` writes into its log, last of all, when a run fails.
ERROR = "error: "

# The chain from data to a pushed version: the step's name, the component, its output.
_CHAIN = (
    ("examples", "CorpusExampleGen", "examples"),
    ("tokens", "Transform", "transformed_examples"),
    ("model", "Trainer", "model"),
    ("evaluation", "Evaluator", "evaluation"),
    ("version", "Pusher", "pushed_model"),
)


def read_run_reports(config: PipelineConfig, newest: int) -> list[RunReport]:
    """Returns what the pipeline's newest runs came to, the oldest first.

    Raises:
        LookupError: The pipeline has not run yet.
    """
    runs = read_runs(config.metadata_path, config.name, newest)
    makers = _find_makers(runs)
    return [_read_run(config, run, makers) for run in runs]


def _read_run(config: PipelineConfig, run: Run, makers: Mapping[int, int]) -> RunReport:
    reader = _Reader(run.nodes)
    states = {node.state: name for name, node in reversed(run.nodes.items())}
    failed_in = states.get("FAILED", "")
    log = _find_log(Path(config.output) / "logs", run) if failed_in else None
    return RunReport(
        run=run,
        failed_in=failed_in,
        interrupted_in=states.get("RUNNING", states.get("NEW", "")),
        error=_read_error(log) if log else "",
        log=str(log or ""),
        data=_read_data(
            run.nodes.get("CorpusExampleGen"), reader.artifact("CorpusExampleGen", "examples")
        ),
        counts=reader.json("CorpusExampleGen", "examples", corpus_counts.COUNTS),
        settings=_read_settings(run.nodes.get("Trainer")),
        training=reader.json("Trainer", "model_run", trainer.REPORT),
        compared=reader.json("BaselineModel", "baseline", baseline.REPORT),
        **_read_evaluation(reader),
        **_read_serving_check(reader),
        pushed_path=_read_pushed_path(reader),
        steps={
            step: Step(artifact.uri, makers.get(artifact.id))
            for step, component, output in _CHAIN
            if (artifact := reader.artifact(component, output))
        },
        missing=reader.missing,
    )


class _Reader:
    """Reads the outputs of a run's components, and notes which are gone."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self._nodes = nodes
        self.missing: list[str] = []

    def artifact(self, component: str, output: str) -> mlmd.Artifact | None:
        """Returns what a component made, if the run got there."""
        node = self._nodes.get(component)
        return node.outputs.get(output) if node else None

    def path(self, component: str, output: str, name: str = "") -> str | None:
        """Returns the path in what a component made, if it is still there."""
        artifact = self.artifact(component, output)
        if artifact is None:
            return None
        path = os.path.join(artifact.uri, name) if name else artifact.uri
        if fileio.exists(path):
            return path
        self.missing.append(path)
        return None

    def json(self, component: str, output: str, name: str) -> dict[str, Any] | None:
        """Returns what is in a JSON file that a component made, if it is still there."""
        if self.path(component, output, name) is None:
            return None
        return read_json(self._nodes[component], output, name)


def _read_evaluation(reader: _Reader) -> dict[str, Any]:
    """Returns the Evaluator's fields of `RunReport`."""
    path = reader.path("Evaluator", "evaluation")
    blessing = reader.artifact("Evaluator", "blessing")
    if path is None or blessing is None:
        return {}
    candidate, production = read_metrics(path, CANDIDATE), read_metrics(path, BASELINE)
    blessed = custom_int(blessing, "blessed") == 1
    return {
        "perplexity": candidate[()]["perplexity"],
        "bits_per_byte": candidate[()]["bits_per_byte"],
        "baseline_perplexity": production[()]["perplexity"],
        "sources": _scores_by(SOURCE, candidate, production),
        "parts": _scores_by(PART, candidate, production),
        "blessed": blessed,
        "not_blessed_because": [] if blessed else read_failures(path),
    }


def _scores_by(
    feature: str,
    candidate: dict[tuple, dict[str, float]],
    production: dict[tuple, dict[str, float]],
) -> list[SliceScore]:
    """Returns the slices that are cut by this feature."""
    return [
        SliceScore(
            name=str(slice_key[0][1]),
            documents=int(metrics["example_count"]),
            perplexity=metrics["perplexity"],
            bits_per_byte=metrics["bits_per_byte"],
            baseline=production[slice_key]["perplexity"],
        )
        for slice_key, metrics in sorted(candidate.items())
        if slice_key and slice_key[0][0] == feature
    ]


def _read_serving_check(reader: _Reader) -> dict[str, Any]:
    """Returns the serving check's fields of `RunReport`."""
    blessing = reader.artifact("ServingCheck", "blessing")
    if blessing is None:
        return {}
    if custom_int(blessing, "blessed") == 1:
        return {"servable": True}
    path = reader.path("ServingCheck", "blessing", serving_check.REPORT)
    reasons = read_text(path).splitlines() if path else []
    return {"servable": False, "not_servable_because": reasons}


def _read_pushed_path(reader: _Reader) -> str:
    pushed = reader.artifact("Pusher", "pushed_model")
    if pushed is None or custom_int(pushed, "pushed") != 1:
        return ""
    return str(pushed.custom_properties["pushed_destination"].string_value)


def _read_data(node: Node | None, examples: mlmd.Artifact | None) -> dict[str, Any] | None:
    """Returns what ExampleGen was told and found; None if it did not begin."""
    if node is None:
        return None
    # An execution that took its examples from the cache says nothing of what was found.
    found = dict(node.properties)
    if examples is not None:
        found |= properties(examples.custom_properties)
    fingerprint = found.get("input_fingerprint", "")
    # As `split:corpus,num_files:4,total_bytes:97880,...` (tfx/components/example_gen/utils.py).
    newest = fingerprint.partition("\n")[0]  # a line for each earlier span follows
    parts = dict(part.partition(":")[::2] for part in newest.split(",") if part)
    has_spans = "span-" in found.get("input_config", "")
    return {
        "folder": found.get("input_base", ""),
        "span": found.get("span") if has_spans else None,
        "files": int(parts.get("num_files", 0)),
        "bytes": int(parts.get("total_bytes", 0)),
        "fingerprint": fingerprint,
    }


def _read_settings(node: Node | None) -> dict[str, Any] | None:
    return json.loads(node.properties["custom_config"]) if node else None


def _find_makers(runs: Sequence[Run]) -> dict[int, int]:
    """Returns the number of the run that made each artifact, by the artifact's id."""
    return {
        artifact.id: run.number
        for run in runs
        for node in run.nodes.values()
        if not node.is_cached
        for artifact in node.outputs.values()
    }


def _find_log(folder: Path, run: Run) -> Path | None:
    """Returns the log in which TFX named the run; None for a run that has none."""
    begin = run.started.timestamp()
    # The oldest that was written to since then is most likely it.
    logs = sorted(log for log in folder.glob("run-*.log") if log.stat().st_mtime >= begin)
    return next((log for log in logs if run.name in log.read_text(errors="replace")), None)


def _read_error(log: Path) -> str:
    """Returns the message that the run ended with; "" if the log has none."""
    _, found, message = log.read_text(errors="replace").rpartition(f"\n{ERROR}")
    return message.strip() if found else ""
