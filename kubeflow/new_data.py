"""Tells whether there is anything new to train on since the run before, and passes that on.

A run without new data would end with the model that it starts from, or one that is no better. So
it ends early: the example generator marks what it makes, and each later task sees the mark on one
of its inputs, does nothing, and marks its own outputs.
"""

from pathlib import Path
from typing import Any

from kubeflow.mirror import Mirror
from model.staged_file import write_whole

# Of artifacts: the data that it was made of, in the end, with the pipeline and its parameters; and
# that there was none to make it of.
DATA_VERSION, NO_NEW_DATA = "data_version", "no_new_data"

# In the served model's folder, by the last run that reached its end.
LAST_DATA = "last_data.json"


def read_inherited(task: dict[str, Any]) -> dict[str, Any]:
    """Returns those of the two properties that an input artifact has."""
    inherited: dict[str, Any] = {}
    for artifacts in task["inputs"].get("artifacts", {}).values():
        for artifact in artifacts["artifacts"]:
            metadata = artifact.get("metadata", {})
            inherited |= {
                key: metadata[key] for key in (DATA_VERSION, NO_NEW_DATA) if key in metadata
            }
    return inherited


def read_last_data(serving_base: str, mirror: Mirror) -> str | None:
    """Returns the data's version in the last run that reached its end; None without one."""
    if mirror.is_copy(serving_base):
        from kubeflow import buckets  # which is all of Beam

        return buckets.read_text(_file(serving_base))
    path = Path(mirror.to_path(_file(serving_base)))
    return path.read_text() if path.is_file() else None


def write_last_data(serving_base: str, mirror: Mirror, data_version: str) -> None:
    """Has the next run know that this data was used, whether its model was pushed or not."""
    if mirror.is_copy(serving_base):
        from kubeflow import buckets

        buckets.write_text(_file(serving_base), data_version)
        return
    write_whole(mirror.to_path(_file(serving_base)), data_version)


def _file(serving_base: str) -> str:
    return f"{serving_base.rstrip('/')}/{LAST_DATA}"
