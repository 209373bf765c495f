"""Reads runs from ML Metadata."""

import dataclasses
from pathlib import Path

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata


@dataclasses.dataclass(frozen=True)
class Node:
    """One component's execution in a run.

    Args:
        seconds: How long it ran; 0 when it was taken from the cache.
        is_cached: Whether it was taken from the cache.
        outputs: The artifact behind each output's name.
    """

    seconds: float
    is_cached: bool
    outputs: dict[str, mlmd.Artifact]

    def output(self, name: str) -> mlmd.Artifact:
        """Returns the artifact of an output.

        Raises:
            KeyError: There is none.
        """
        return self.outputs[name]


def read_last_run(metadata_path: str, pipeline_name: str) -> dict[str, Node]:
    """Returns the components of the pipeline's newest run, in the order they ran.

    Raises:
        LookupError: The pipeline has not run yet.
    """
    if not Path(metadata_path).exists():
        raise LookupError(f"no run yet: there is no {metadata_path}")
    store = metadata_store.MetadataStore(metadata.sqlite_metadata_connection_config(metadata_path))
    pipeline = store.get_context_by_type_and_name("pipeline", pipeline_name)
    runs = store.get_children_contexts_by_context(pipeline.id) if pipeline else []
    runs = [run for run in runs if run.type == "pipeline_run"]
    if not runs:
        raise LookupError(f"no run of the pipeline {pipeline_name!r} in {metadata_path}")
    newest = max(runs, key=lambda run: run.id)
    nodes = {}
    for execution in sorted(store.get_executions_by_context(newest.id), key=lambda e: e.id):
        nodes[_node_id(store, execution, pipeline_name)] = _read_node(store, execution)
    return nodes


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
    )
