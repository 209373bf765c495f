"""What a run came to, read from its metadata and artifacts."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import tensorflow_model_analysis as tfma
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tensorflow_model_analysis.proto import validation_result_pb2
from tensorflow_model_analysis.slicer import slicer_lib
from tfx.dsl.io import fileio

from components import baseline, corpus_counts, serving_check, trainer
from components.evaluation import BASELINE, CANDIDATE, PART, SOURCE
from model.staged_file import write_whole
from pipeline.config import PipelineConfig
from pipeline.lineage import Node, read_last_run


@dataclasses.dataclass(frozen=True)
class Summary:
    """Says what a run read, trained, measured and pushed.

    Args:
        pipeline: The pipeline's name.
        documents, refused: Records that were kept, and bad ones.
        left_out: Documents of earlier spans that are not for evaluation.
        span, earlier_spans: The span that was trained on, None without spans, and those that were
            evaluated on besides.
        train_tokens, eval_tokens: GPT-2 tokens of the two splits.
        parameters: Trainable parameters.
        start: Where training started, see `components.start`.
        steps: Optimiser updates.
        model_step: After which of them the model is: the last, or the best one.
        train_loss: Mean over the last 50 steps, nats a token.
        eval_perplexity, eval_bits_per_byte: Of the candidate, on the eval split.
        unigram_perplexity, unigram_bits_per_byte: Of the unigram model of the train split, on the
            eval split.
        baseline_perplexity, baseline_bits_per_byte: Of the model in production on the eval split;
            None without one.
        baseline_version: The version in production that it was compared with.
        blessed: Whether the candidate is good enough to be pushed.
        not_blessed_because: Why not; empty when blessed.
        servable: Whether the candidate can be served, without which it is not pushed.
        not_servable_because: Why not; empty when it can.
        pushed_path: The pushed version's folder; None when nothing was pushed.
        ignored_files: What lies in the data folder and is in no format that is read.
        perplexity_by_source: Of the candidate, for each source of the eval split.
        perplexity_by_part, baseline_perplexity_by_part: With spans, of the candidate and of the
            model in production for the newest span's data, `new`, and the earlier ones', `old`;
            empty without.
        seconds: By component; 0 for one that was taken from the cache.
        cached: The components that were taken from the cache.
    """

    pipeline: str
    documents: int
    refused: int
    left_out: int
    span: int | None
    earlier_spans: list[int]
    train_tokens: int
    eval_tokens: int
    parameters: int
    start: str
    steps: int
    model_step: int
    train_loss: float
    eval_perplexity: float
    eval_bits_per_byte: float
    unigram_perplexity: float
    unigram_bits_per_byte: float
    baseline_perplexity: float | None
    baseline_bits_per_byte: float | None
    baseline_version: int | None
    blessed: bool
    not_blessed_because: list[str]
    servable: bool
    not_servable_because: list[str]
    pushed_path: str | None
    ignored_files: list[str]
    perplexity_by_source: dict[str, float]
    perplexity_by_part: dict[str, float]
    baseline_perplexity_by_part: dict[str, float]
    seconds: dict[str, float]
    cached: list[str]

    def write(self, path: Path) -> None:
        """Writes it as JSON, whole or not at all."""
        write_whole(path, json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    def describe(self) -> str:
        """Returns it as lines for a person."""
        perplexity, bits_per_byte = f"{self.eval_perplexity:.1f}", f"{self.eval_bits_per_byte:.3f}"
        if self.baseline_perplexity is not None and self.baseline_bits_per_byte is not None:
            perplexity += f", in production {self.baseline_perplexity:.1f}"
            bits_per_byte += f", in production {self.baseline_bits_per_byte:.3f}"
        pushed = self.pushed_path or "nothing"
        if self.pushed_path and "Pusher" in self.cached:
            pushed += " (by an earlier run)"
            if not fileio.exists(self.pushed_path):
                pushed += ", but it is gone: --set cache=false pushes it again"
        ignored = ", ".join(self.ignored_files[:5]) + (", ..." if self.ignored_files[5:] else "")
        left_out = f", {self.left_out:,} of earlier spans left out" if self.left_out else ""
        rows = [
            ("span", self._describe_spans()),
            ("documents", f"{self.documents:,} kept, {self.refused:,} records refused{left_out}"),
            ("ignored", ignored),
            ("tokens", f"{self.train_tokens:,} to train on, {self.eval_tokens:,} to evaluate on"),
            ("model", self._describe_model()),
            ("train loss", f"{self.train_loss:.3f} nats a token"),
            ("perplexity", f"{perplexity}, unigram model {self.unigram_perplexity:.1f}"),
            *((f"  on {part} data", text) for part, text in self._describe_parts().items()),
            ("bits per byte", f"{bits_per_byte}, unigram model {self.unigram_bits_per_byte:.3f}"),
            ("blessed", "yes" if self.blessed else f"no: {'; '.join(self.not_blessed_because)}"),
            ("servable", "" if self.servable else f"no: {'; '.join(self.not_servable_because)}"),
            ("pushed", pushed),
            (
                "seconds",
                ", ".join(
                    f"{name} {'cached' if name in self.cached else f'{seconds:.0f}'}"
                    for name, seconds in self.seconds.items()
                ),
            ),
        ]
        return "\n".join(f"{name:<14} {value}" for name, value in rows if value)

    def _describe_model(self) -> str:
        best = f" (the best of them, {self.model_step:,})" if self.model_step < self.steps else ""
        return f"{self.parameters:,} parameters, {self.steps:,} steps{best} from {self.start}"

    def _describe_spans(self) -> str:
        if self.span is None:
            return ""
        earlier = ", ".join(map(str, self.earlier_spans))
        return f"{self.span}, evaluated on {earlier} too" if earlier else f"{self.span}"

    def _describe_parts(self) -> dict[str, str]:
        """Returns the perplexity on each part, if there are several."""
        if len(self.perplexity_by_part) < 2:
            return {}
        described = {}
        for part, perplexity in self.perplexity_by_part.items():
            described[part] = f"{perplexity:.1f}"
            if part in self.baseline_perplexity_by_part:
                production = self.baseline_perplexity_by_part[part]
                described[part] += f", in production {production:.1f}"
        return described


def summarize(config: PipelineConfig) -> Summary:
    """Returns the summary of the newest run of this configuration's pipeline."""
    nodes = read_last_run(config.metadata_path, config.name)
    counts = read_json(nodes["CorpusExampleGen"], "examples", corpus_counts.COUNTS)
    training = read_json(nodes["Trainer"], "model_run", trainer.REPORT)
    compared = read_json(nodes["BaselineModel"], "baseline", baseline.REPORT)
    evaluation = nodes["Evaluator"].output("evaluation").uri
    candidate = read_metrics(evaluation, CANDIDATE)
    production: dict[tuple, dict[str, float]] = {(): {}}
    if compared["version"] is not None:
        production = read_metrics(evaluation, BASELINE)
    blessed = custom_int(nodes["Evaluator"].output("blessing"), "blessed") == 1
    infra_blessing = nodes["ServingCheck"].output("blessing")
    servable = custom_int(infra_blessing, "blessed") == 1
    pushed_model = nodes["Pusher"].output("pushed_model")
    was_pushed = custom_int(pushed_model, "pushed") == 1
    return Summary(
        pipeline=config.name,
        documents=counts["kept"],
        refused=counts["refused"],
        left_out=counts["left_out"],
        span=counts["span"],
        earlier_spans=counts["earlier_spans"],
        train_tokens=training["train_tokens"],
        eval_tokens=training["eval_tokens"],
        parameters=training["parameters"],
        start=training["start"],
        steps=training["steps"],
        model_step=training.get("model_step", training["steps"]),  # older models have none
        train_loss=training["train_loss"],
        eval_perplexity=candidate[()]["perplexity"],
        eval_bits_per_byte=candidate[()]["bits_per_byte"],
        unigram_perplexity=compared["unigram_perplexity"],
        unigram_bits_per_byte=compared["unigram_bits_per_byte"],
        baseline_perplexity=production[()].get("perplexity"),
        baseline_bits_per_byte=production[()].get("bits_per_byte"),
        baseline_version=compared["version"],
        blessed=blessed,
        not_blessed_because=[] if blessed else read_failures(evaluation),
        servable=servable,
        not_servable_because=(
            []
            if servable
            else read_text(os.path.join(infra_blessing.uri, serving_check.REPORT)).splitlines()
        ),
        pushed_path=(
            pushed_model.custom_properties["pushed_destination"].string_value
            if was_pushed
            else None
        ),
        ignored_files=counts["ignored_files"],
        perplexity_by_source=perplexity_by(SOURCE, candidate),
        perplexity_by_part=perplexity_by(PART, candidate),
        baseline_perplexity_by_part=perplexity_by(PART, production),
        seconds={name: round(node.seconds, 1) for name, node in nodes.items()},
        cached=[name for name, node in nodes.items() if node.is_cached],
    )


def read_json(node: Node, output: str, name: str) -> dict[str, Any]:
    """Returns what is in the JSON file of that name in a component's output."""
    return json.loads(read_text(os.path.join(node.output(output).uri, name)))


def read_text(path: str) -> str:
    """Returns what is in the file."""
    with fileio.open(path) as file:
        return file.read()


def read_metrics(evaluation: str, model_name: str) -> dict[tuple, dict[str, float]]:
    """Returns the metrics of each slice; the whole split's key is ()."""
    result = tfma.load_eval_result(evaluation, model_name=model_name)
    return {
        slice_key: {
            # From JSON, where infinity and NaN are strings.
            name: float(value["doubleValue"])
            for name, value in metrics[""][""].items()
            if "doubleValue" in value
        }
        for slice_key, metrics in result.slicing_metrics
    }


def perplexity_by(feature: str, metrics: dict[tuple, dict[str, float]]) -> dict[str, float]:
    """Returns the perplexity of each slice that is cut by this feature, by its value."""
    return {
        slice_key[0][1]: of_slice["perplexity"]
        for slice_key, of_slice in sorted(metrics.items())
        if slice_key and slice_key[0][0] == feature
    }


def read_failures(evaluation: str) -> list[str]:
    """Returns a sentence for each of TFMA's thresholds that the candidate failed."""
    candidate, baseline = (read_metrics(evaluation, model) for model in (CANDIDATE, BASELINE))
    sentences = []
    validation = tfma.load_validation_result(evaluation)
    for of_slice in sorted(validation.metric_validations_per_slice, key=_slice_key):
        slice_key = _slice_key(of_slice)
        # The slices with thresholds are the whole and the parts.
        where = f" on {slice_key[0][1]} data" if slice_key else ""
        for failure in of_slice.failures:
            name, threshold = failure.metric_key.name, failure.metric_threshold
            if failure.metric_key.is_diff:
                before = baseline[slice_key][name]
                needed = before * (1 + threshold.change_threshold.relative.value)
                bound = f"{needed:.1f} or less against the baseline's {before:.1f}"
            else:
                bound = f"{threshold.value_threshold.upper_bound.value:g} or less"
            value = candidate[slice_key][name]
            sentences.append(f"{name}{where} is {value:.1f}, needed {bound}")
    return sentences or [f"see {evaluation}"]


def _slice_key(of_slice: validation_result_pb2.MetricsValidationForSlice) -> tuple:
    return slicer_lib.deserialize_slice_key(of_slice.slice_key)


def custom_int(artifact: mlmd.Artifact, name: str) -> int:
    """Returns a number that a component wrote on its output; 0 if it did not."""
    return artifact.custom_properties[name].int_value
