"""Where training starts: from scratch, from the model in production, or from given weights."""

import dataclasses
import hashlib
import os

from components.versions import newest_version
from model.config import GPT2Config
from model.gpt2 import GPT2
from model.pretrained import load_pretrained, read_pretrained_config

SCRATCH, PRODUCTION = "scratch", "production"

# What may differ between the weights' own model and the one that is trained from them.
_FREE = ("dropout", "max_length")


@dataclasses.dataclass(frozen=True)
class Start:
    """Says where training starts.

    Args:
        model: The model whose weights are taken; None from scratch.
        description: `scratch`, `production version 7`, or `weights FOLDER`.
        digest: Of all weights; empty from scratch.
    """

    model: GPT2 | None
    description: str
    digest: str


def find_start(start: str, serving_folder: str, config: GPT2Config) -> Start:
    """Returns where training starts.

    Args:
        start: `scratch`; `production`, which is from scratch as long as nothing is in production;
            or a folder that `load_pretrained` reads.
        serving_folder: `<base>/<model name>`, as TF Serving reads it.
        config: The sizes of the model to be trained.

    Raises:
        ValueError: The weights can't be read, or are of other sizes. A longer context than
            the one to be trained is no error: positions beyond it are left out.
    """
    if start == SCRATCH:
        return _SCRATCH
    description = f"weights {start}"
    if start == PRODUCTION:
        version = newest_version(serving_folder)
        if version is None:
            return _SCRATCH
        description = f"production version {version}"
        start = os.path.join(serving_folder, str(version))
    model = _fit(load_pretrained(start), config, start)
    digest = hashlib.sha256()
    for weight in model.trainable_variables:
        digest.update(weight.numpy().tobytes())
    return Start(model, description, digest.hexdigest())


def list_start_files(start: str, serving_folder: str, config: GPT2Config) -> list[str]:
    """Returns name, size and time of change of the files in the folder to start from, if it is one.

    The cache's key has them, so that other weights in the same folder are trained from anew. What
    is in production is left out: it changes with every push, and that alone is no reason to train.

    What doesn't fit is told here, before anything runs, even where all would come from the cache.

    Args:
        start: As `find_start` takes it.
        serving_folder: Likewise.
        config: Likewise.

    Raises:
        ValueError: There is no such folder, or it holds no weights, other sizes or 8 bits.
    """
    if start == PRODUCTION and (version := newest_version(serving_folder)) is not None:
        folder = os.path.join(serving_folder, str(version))
        _check_sizes(read_pretrained_config(folder), config, folder)
    if start in (SCRATCH, PRODUCTION):
        return []
    if not os.path.isdir(start):
        raise ValueError(
            f"start must be {SCRATCH!r}, {PRODUCTION!r} or a folder with weights, got {start!r}, "
            "which is no folder"
        )
    _check_sizes(read_pretrained_config(start), config, start)
    # Not by TensorFlow's stat, which knows whole seconds only.
    files = (os.path.join(folder, name) for folder, _, names in os.walk(start) for name in names)
    return [f"{file} {os.path.getsize(file)} {os.path.getmtime(file)}" for file in sorted(files)]


_SCRATCH = Start(None, SCRATCH, "")


def _fit(source: GPT2, config: GPT2Config, folder: str) -> GPT2:
    """Returns the source's weights in a model of these sizes."""
    _check_sizes(source.config, config, folder)
    model = GPT2(**config.to_dict())
    model.build((None, config.max_length))
    for new, old in zip(model.trainable_variables, source.trainable_variables, strict=True):
        new.assign(old.numpy()[: new.shape[0]])  # all of it, but for positions beyond max_length
    return model


def _check_sizes(source: GPT2Config, config: GPT2Config, folder: str) -> None:
    wanted, found = config.to_dict(), source.to_dict()
    problems = [
        f"model.{name} must be {found[name]!r}, as in the weights, got {value!r}"
        for name, value in wanted.items()
        if name not in _FREE and value != found[name]
    ]
    if config.max_length > source.max_length:
        problems.append(
            f"model.max_length must be <= {source.max_length}, the weights' own, "
            f"got {config.max_length}"
        )
    if problems:
        raise ValueError(f"cannot start from {folder}: " + "; ".join(problems))
