"""Runs the example generator's driver, which finds the newest data; the backend runs none."""

import importlib
import json
import os
from pathlib import Path
from typing import Any

from components.input_files import span_folder
from data.corpora import CORPORA
from data.prepare import prepare
from kubeflow import buckets
from kubeflow.mirror import Mirror
from pipeline.kubeflow_config import WORKSPACE


def resolve_data(driver: str, task: dict[str, Any], data_root: str, mirror: Mirror) -> str:
    """Puts what the driver finds into the task, as TFX's own runners do; returns a fingerprint.

    Args:
        driver: The class's dotted path.
        task: The ExecutorInput, whose parameters and output artifact it changes.
        data_root: The data's folder as it was given. From a bucket only those files are downloaded
            that the driver chose. A corpus that we know is fetched if it is not there yet.
        mirror: Says where the data is.

    Raises:
        ValueError: There is no data.
    """
    properties = task["inputs"]["parameterValues"]
    folder = Path(properties["input_base"])
    files: dict[str, Any] = {}
    corpus = data_root.removeprefix(f"{WORKSPACE}/data/")  # PipelineConfig.data_folder
    if corpus in CORPORA:
        prepare(corpus, folder)
    if mirror.is_copy(data_root):
        files = buckets.stand_in(data_root, folder)
        if not files:
            raise ValueError(f"data_root {data_root!r} holds no files")
    module, _, name = driver.rpartition(".")
    # It would need metadata for the output's path only, which the backend gives.
    resolved = getattr(importlib.import_module(module), name)(None).resolve_exec_properties(
        dict(properties), None, None
    )
    chosen = _folders(resolved)
    buckets.download(files, [name for name in files if os.path.dirname(name) in chosen], folder)
    properties.update({key: value for key, value in resolved.items() if value is not None})
    (examples,) = task["outputs"]["artifacts"]["examples"]["artifacts"]
    found = {name: resolved[name] for name in ("span", "input_fingerprint")}
    examples["metadata"] = examples.get("metadata", {}) | found
    return json.dumps(found)


def _folders(resolved: dict[str, Any]) -> set[str]:
    """Returns the folders in the data's that are read: of the newest span, and of earlier ones."""
    splits = json.loads(resolved["input_config"])["splits"]
    settings = json.loads(resolved["custom_config"])["custom_config"].get("value", {})
    earlier = {span_folder("", int(span)) for span in settings.get("earlier_spans", [])}
    return {os.path.dirname(split["pattern"]) for split in splits} | earlier
