"""Which code made an artifact."""

import hashlib
from importlib import resources


def code_digest(*more: str) -> str:
    """Returns a digest of the sources of `model` and `components`, and of more packages.

    TFX's cache does not look at code that is imported. With the digest among a component's
    settings, a change to the code makes the component run again.
    """
    digest = hashlib.sha256()
    for package in ("model", "components", *more):
        for file in sorted(resources.files(package).iterdir(), key=lambda file: file.name):
            if file.name.endswith(".py"):
                digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]
