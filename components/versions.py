"""The versions in a served model's folder, as TF Serving reads it."""

import os

from tfx.dsl.io import fileio


def newest_version(serving_folder: str) -> int | None:
    """Returns the version that a server would serve: the greatest that is whole, or None."""
    whole = [
        version
        for version in list_versions(serving_folder)
        if fileio.exists(os.path.join(serving_folder, str(version), "saved_model.pb"))
    ]
    return max(whole, default=None)


def list_versions(serving_folder: str) -> list[int]:
    """Returns the numbers in a served model's folder, whole models or not."""
    if not fileio.isdir(serving_folder):
        return []
    names = [name.rstrip("/") for name in fileio.listdir(serving_folder)]
    return [int(name) for name in names if name.isascii() and name.isdigit()]
