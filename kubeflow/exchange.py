"""Brings what is no artifact from buckets to where a task looks for it, and back what is new.

The launcher does this for artifacts. A served model's folder, weights to start from and the data
are a component's settings, of which it knows nothing.
"""

from pathlib import Path
from typing import Any

from components.start import PRODUCTION
from kubeflow import buckets
from kubeflow.mirror import Mirror, find_text, find_texts


def fetch(properties: dict[str, Any], mirror: Mirror) -> None:
    """Downloads what the settings name, and no more of it than the task needs.

    Args:
        properties: The task's parameters, as they were compiled. `input_base`, the data, is left to
            `kubeflow.data_driver`.
        mirror: Says where things go.

    Raises:
        ValueError: There is a bucket's URI where none can be.
    """
    for key, uri in find_texts(properties):
        if key == "input_base" or not mirror.is_copy(uri):
            continue
        path = Path(mirror.to_path(uri))
        if key == "serving_folder":
            # The trainer has it, too, and reads it for one reason only.
            if find_text(properties, "start") in (None, PRODUCTION):
                _fetch_newest_version(uri, path)
        elif key == "base_directory":  # the pusher's
            for version in _versions(buckets.list_files(uri)):
                (path / version).mkdir(parents=True, exist_ok=True)
        elif key == "start":
            files = buckets.list_files(uri)
            buckets.download(files, files, path)
        else:
            raise ValueError(f"{key} must not be in a bucket, got {uri!r}")


def bring_back(properties: dict[str, Any], mirror: Mirror) -> None:
    """Uploads the versions that the pusher wrote."""
    for key, uri in find_texts(properties):
        if key == "base_directory" and mirror.is_copy(uri):
            base = Path(mirror.to_path(uri))
            # Those that were there before are empty folders here.
            for model in base.glob(f"*/{buckets.MODEL_FILE}"):
                buckets.upload_model(model.parent, f"{uri.rstrip('/')}/{model.parent.name}")


def _fetch_newest_version(uri: str, path: Path) -> None:
    files = buckets.list_files(uri)
    whole = [name for name in _versions(files) if f"{name}/{buckets.MODEL_FILE}" in files]
    if whole:
        newest = max(whole, key=int)
        buckets.download(files, [name for name in files if name.startswith(newest + "/")], path)


def _versions(files: dict[str, Any]) -> set[str]:
    folders = {name.partition("/")[0] for name in files if "/" in name}
    return {name for name in folders if name.isascii() and name.isdigit()}
