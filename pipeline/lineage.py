"""Reads runs from ML Metadata."""

import dataclasses
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata

_State = mlmd.Execution.State


@dataclasses.dataclass(frozen=True)
class Node:
    """One component's execution in a run.

    Args:
        seconds: How long it ran; 0 when it was taken from the cache.
        is_cached: Whether it was taken from the cache.
        outputs: The artifact behind each output's name.
        state: ML Metadata's word: `COMPLETE`, `CACHED`, `FAILED`, `RUNNING`, ... A component that
            was killed stays RUNNING for ever.
        properties: What the component was told, by name.
    """

    seconds: float
    is_cached: bool
    outputs: dict[str, mlmd.Artifact]
    state: str = "COMPLETE"
    properties: dict[str, Any] = dataclasses.field(default_factory=dict)

    def output(self, name: str) -> mlmd.Artifact:
        """Returns the artifact of an output.

        Raises:
            KeyError: There is none.
        """
        return self.outputs[name]


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a pipeline.

    Args:
        number: 1 for the pipeline's first run.
        name: TFX's id of the run, which its log has too.
        started: When, UTC.
        seconds: From then to the last thing that a component did.
        nodes: Its components in the order they ran, as far as it got.
    """

    number: int
    name: str
    started: datetime.datetime
    seconds: float
    nodes: dict[str, Node]


def read_last_run(metadata_path: str, pipeline_name: str) -> dict[str, Node]:
    """Returns the components of the pipeline's newest run, in the order they ran.

    Raises:
        LookupError: The pipeline has not run yet.
    """
    return read_runs(metadata_path, pipeline_name, newest=1)[-1].nodes


def read_runs(metadata_path: str, pipeline_name: str, newest: int | None = None) -> list[Run]:
    """Returns the pipeline's runs, the oldest first, those that failed among them.

    Args:
        metadata_path: SQLite's file.
        pipeline_name: The pipeline's.
        newest: If given, only so many of the newest.

    Raises:
        LookupError: The pipeline has not run yet.
    """
    if not Path(metadata_path).exists():
        raise LookupError(f"no run yet: there is no {metadata_path}")
    store = metadata_store.MetadataStore(metadata.sqlite_metadata_connection_config(metadata_path))
    pipeline = store.get_context_by_type_and_name("pipeline", pipeline_name)
    contexts = store.get_children_contexts_by_context(pipeline.id) if pipeline else []
    contexts = [context for context in contexts if context.type == "pipeline_run"]
    if not contexts:
        raise LookupError(f"no run of the pipeline {pipeline_name!r} in {metadata_path}")
    contexts.sort(key=lambda context: context.id)
    numbered = list(enumerate(contexts, start=1))[-newest if newest else 0 :]
    return [_read_run(store, number, context, pipeline_name) for number, context in numbered]


def _read_run(
    store: metadata_store.MetadataStore, number: int, run: mlmd.Context, pipeline_name: str
) -> Run:
    executions = sorted(store.get_executions_by_context(run.id), key=lambda e: e.id)
    begin = run.create_time_since_epoch
    end = max([begin, *(execution.last_update_time_since_epoch for execution in executions)])
    return Run(
        number=number,
        name=run.name,
        started=datetime.datetime.fromtimestamp(begin / 1000, datetime.timezone.utc),
        seconds=(end - begin) / 1000,
        nodes={
            _node_id(store, execution, pipeline_name): _read_node(store, execution)
            for execution in executions
        },
    )


def _node_id(
    store: metadata_store.MetadataStore, execution: mlmd.Execution, pipeline_name: str
) -> str:
    for context in store.get_contexts_by_execution(execution.id):
        if context.type == "node":
            return str(context.name).removeprefix(f"{pipeline_name}.")
    raise LookupError(f"execution {execution.id} belongs to no node")


def _read_node(store: metadata_store.MetadataStore, execution: mlmd.Execution) -> Node:
    events = [
        event
        for event in store.get_events_by_execution_ids([execution.id])
        if event.type == mlmd.Event.OUTPUT
    ]
    artifacts = store.get_artifacts_by_id([event.artifact_id for event in events])
    by_id = {artifact.id: artifact for artifact in artifacts}
    is_cached = execution.last_known_state == mlmd.Execution.CACHED
    milliseconds = execution.last_update_time_since_epoch - execution.create_time_since_epoch
    return Node(
        seconds=0.0 if is_cached else milliseconds / 1000,
        is_cached=is_cached,
        outputs={event.path.steps[0].key: by_id[event.artifact_id] for event in events},
        state=_State.Name(execution.last_known_state),
        properties=properties(execution.custom_properties),
    )


def properties(custom: Mapping[str, mlmd.Value]) -> dict[str, Any]:
    """Returns the custom properties of an execution or artifact as Python's values."""
    return {name: getattr(value, value.WhichOneof("value")) for name, value in custom.items()}
