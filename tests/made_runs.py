"""Runs as TFX's local runner leaves them: ML Metadata's store, and the folders that it names."""

import json
from pathlib import Path
from typing import Any

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata

from pipeline.config import PipelineConfig
from pipeline.config_file import load_config
from tests.small_examples import write_examples

STATES = mlmd.Execution.State


class MadeRuns:
    """The store of one pipeline, written through ML Metadata's own interface.

    Args:
        folder: Where the output folder goes.
    """

    def __init__(self, folder: Path) -> None:
        self.output = folder / "output"
        self.output.mkdir()
        self.config: PipelineConfig = load_config("tiny", [f"output={self.output}"])
        self._store = metadata_store.MetadataStore(
            metadata.sqlite_metadata_connection_config(self.config.metadata_path)
        )
        self._pipeline = self._context("pipeline", self.config.name)
        self._folders = 0

    def start(self, name: str) -> None:
        """Begins a run, which everything added from now on belongs to."""
        self._run = self._context("pipeline_run", name)
        link = mlmd.ParentContext(parent_id=self._pipeline, child_id=self._run)
        self._store.put_parent_contexts([link])

    def folder(self, **files: str) -> Path:
        """A new folder with these files, each named with `_` for the dot."""
        self._folders += 1
        path = self.output / "pipeline" / str(self._folders)
        path.mkdir(parents=True)
        for name, content in files.items():
            (path / name.replace("_", ".")).write_text(content)
        return path

    def add(
        self,
        component: str,
        outputs: dict[str, mlmd.Artifact] | None = None,
        state: str = "COMPLETE",
        **properties: Any,
    ) -> dict[str, mlmd.Artifact]:
        """Adds a component's execution; artifacts that the store has already come from the cache.

        Returns the outputs as they are in the store.
        """
        type_id = self._store.put_execution_type(mlmd.ExecutionType(name=f"made.{component}"))
        execution = mlmd.Execution(
            type_id=type_id,
            last_known_state=STATES.Value(state),
            custom_properties=_values(properties),
        )
        (execution_id,) = self._store.put_executions([execution])
        node = self._context("node", f"{self.config.name}.{component}")
        for context in (self._run, node):
            link = mlmd.Association(execution_id=execution_id, context_id=context)
            self._store.put_attributions_and_associations([], [link])
        stored = {}
        for name, artifact in (outputs or {}).items():
            (artifact_id,) = [artifact.id] if artifact.id else self._store.put_artifacts([artifact])
            path = mlmd.Event.Path(steps=[mlmd.Event.Path.Step(key=name)])
            event = mlmd.Event(
                artifact_id=artifact_id,
                execution_id=execution_id,
                type=mlmd.Event.OUTPUT,
                path=path,
            )
            self._store.put_events([event])
            (stored[name],) = self._store.get_artifacts_by_id([artifact_id])
        return stored

    def artifact(self, folder: str | Path, **properties: Any) -> mlmd.Artifact:
        """An artifact that is not in the store yet."""
        type_id = self._store.put_artifact_type(mlmd.ArtifactType(name="made"))
        return mlmd.Artifact(
            type_id=type_id, uri=str(folder), custom_properties=_values(properties)
        )

    def _context(self, kind: str, name: str) -> int:
        found = self._store.get_context_by_type_and_name(kind, name)
        if found:
            return found.id
        type_id = self._store.put_context_type(mlmd.ContextType(name=kind))
        return self._store.put_contexts([mlmd.Context(type_id=type_id, name=name)])[0]


def _values(properties: dict[str, Any]) -> dict[str, mlmd.Value]:
    return {
        name: mlmd.Value(int_value=value)
        if isinstance(value, int)
        else mlmd.Value(string_value=value)
        for name, value in properties.items()
    }


def add_data(runs: MadeRuns, refusals: list[dict[str, Any]]) -> dict[str, mlmd.Artifact]:
    """Adds ExampleGen and Transform: documents of 3, 2, 5 and 40 tokens, the last to evaluate on.

    Returns their outputs.
    """
    counts = {"kept": 4, "refused": len(refusals), "train": 3, "eval": 1, "ignored_files": []}
    refused = "".join(json.dumps(refusal) + "\n" for refusal in refusals)
    examples = runs.folder(counts_json=json.dumps(counts), refused_jsonl=refused)
    fingerprint = "split:corpus,num_files:2,total_bytes:1234,xor_checksum:1,sum_checksum:9"
    told = {"input_base": "my/texts", "input_config": '{"pattern": "span-7/*"}'}
    found = runs.artifact(examples, span=7, input_fingerprint=fingerprint)
    outputs = runs.add("CorpusExampleGen", {"examples": found}, **told)
    tokens = runs.folder()
    for split, lengths in (("train", [3, 2, 5]), ("eval", [40])):
        documents = [[7] * length for length in lengths]
        write_examples(tokens / f"Split-{split}" / "examples.tfrecord", documents)
    return outputs | runs.add("Transform", {"transformed_examples": runs.artifact(tokens)})


def add_training(runs: MadeRuns, losses: list[float | None]) -> mlmd.Artifact:
    """Adds a Trainer with a step for each loss; the last one has an eval loss, too.

    Returns the model.
    """
    records: list[dict[str, Any]] = [
        {"step": step, "loss": loss, "learning_rate": step / 1000}
        for step, loss in enumerate(losses, start=1)
    ]
    records[-1]["eval_loss"] = 4.25
    logs = runs.folder(metrics_jsonl="".join(json.dumps(record) + "\n" for record in records))
    training = {
        "parameters": 12345,
        "start": "scratch",
        "steps": len(losses),
        "train_loss": 4.5,
        "train_tokens": 10,
        "eval_tokens": 40,
        "tokens_seen": 99,
        "logs": str(logs),
    }
    settings = {"model": {"num_layers": 2}, "training": {"steps": len(losses), "strategy": {}}}
    outputs = {
        "model": runs.artifact(runs.folder()),
        "model_run": runs.artifact(runs.folder(training_json=json.dumps(training))),
    }
    return runs.add("Trainer", outputs, custom_config=json.dumps(settings))["model"]


def add_verdict(
    runs: MadeRuns, evaluation: str, version: int | None, blessed: bool, pushed: str = ""
) -> None:
    """Adds what comes behind the Trainer.

    Args:
        runs: The store.
        evaluation: The folder that TFMA wrote.
        version: The version in production that it was compared with.
        blessed: Whether it is good enough.
        pushed: The folder that it was pushed to.
    """
    compared = {"version": version, "unigram_perplexity": 700.5, "unigram_bits_per_byte": 3.0}
    baseline = runs.folder(baseline_json=json.dumps(compared))
    runs.add("BaselineModel", {"baseline": runs.artifact(baseline)})
    runs.add("ServingCheck", {"blessing": runs.artifact(runs.folder(), blessed=1)})
    outputs = {
        "evaluation": runs.artifact(evaluation),
        "blessing": runs.artifact(runs.folder(), blessed=int(blessed)),
    }
    runs.add("Evaluator", outputs)
    pushed_model = runs.artifact(runs.folder(), pushed=int(bool(pushed)), pushed_destination=pushed)
    runs.add("Pusher", {"pushed_model": pushed_model})
