"""Weights in Hugging Face's form: `config.json` and `model.safetensors`."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from model.config import GPT2Config
from model.gpt2 import GPT2
from model.huggingface_config import from_gpt2_config, read_fields, to_gpt2_config
from model.named_tensors import Tensors, assign_all
from model.published_names import huggingface_names
from model.staged_folder import staged_folder

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PREFIX = "transformer."
_HEAD = "lm_head.weight"

# The causal mask and its value, which older versions of transformers stored with the weights.
_BUFFER = re.compile(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)")

# The types of safetensors that NumPy has by another name; all others become an error by theirs.
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def read_huggingface(folder: str | os.PathLike[str]) -> GPT2:
    """Returns the GPT-2 that Hugging Face's `GPT2LMHeadModel` or `GPT2Model` saved in `folder`.

    Names may have the prefix `transformer.` or not, the weights may lie in one file or in shards,
    and may have 16 bits. The output head is the token embedding; a file may hold it once more.

    Raises:
        ValueError: The configuration has no counterpart here; a file is missing or damaged; a
            tensor is missing, extra or of another shape; or the head is not the token embedding.
    """
    folder = Path(folder)
    fields = read_fields(folder / _CONFIG)
    config = to_gpt2_config(fields, folder / _CONFIG)
    tensors = _open(folder).only(lambda name: not _BUFFER.fullmatch(name))
    model = GPT2(**config.to_dict())
    model.build((None, config.max_length))

    has_prefix = any(name.startswith(_PREFIX) for name in tensors.shapes)
    variables = huggingface_names(model, _PREFIX if has_prefix else "")
    embedding_name = next(iter(variables))
    if _HEAD in tensors.shapes or not fields.get("tie_word_embeddings", True):
        # Its presence and its shape are checked with all others'.
        variables = {_HEAD: model.token_embedding.embeddings} | variables
    assign_all(variables, tensors)
    if _HEAD in variables:
        _check_head(tensors, embedding_name)
    return model


def read_huggingface_config(folder: str | os.PathLike[str]) -> GPT2Config:
    """Returns the configuration of the model in `folder`; reads no weights.

    Raises:
        ValueError: It has no counterpart here.
    """
    path = Path(folder) / _CONFIG
    return to_gpt2_config(read_fields(path), path)


def write_huggingface(model: GPT2, folder: str | os.PathLike[str]) -> None:
    """Writes a model so that Hugging Face's `GPT2LMHeadModel.from_pretrained(folder)` reads it.

    Raises:
        ValueError: `folder` exists, or the model's weights are in 8 bits.
    """
    if model.is_int8:
        raise ValueError("the model must have weights in floats, got 8 bits")
    tensors = {
        name: np.ascontiguousarray(variable.numpy())
        for name, variable in huggingface_names(model, _PREFIX).items()
    }
    with staged_folder(folder) as staged:
        save_file(tensors, staged / _WEIGHTS, metadata={"format": "pt"})
        text = json.dumps(from_gpt2_config(model.config), indent=2) + "\n"
        (staged / _CONFIG).write_text(text, encoding="utf-8")
        # safetensors 0.8 makes a file that nobody else may read, whatever the umask.
        shutil.copymode(staged / _CONFIG, staged / _WEIGHTS)


def _open(folder: Path) -> Tensors:
    """Returns the tensors of one file or of all shards that the index names."""
    files: dict[str, Any] = {}
    shapes, dtypes = {}, {}
    for path in _paths(folder):
        try:
            file = safe_open(path, framework="numpy")
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
        for name in file.keys():  # noqa: SIM118 (no mapping)
            if name in files:
                raise ValueError(f"{path}: another file of {folder} holds {name} too")
            stored = file.get_slice(name)
            files[name] = file
            shapes[name] = tuple(stored.get_shape())
            dtypes[name] = _DTYPES.get(stored.get_dtype(), stored.get_dtype())
    return Tensors(str(folder), shapes, dtypes, lambda name: files[name].get_tensor(name))


def _paths(folder: Path) -> list[Path]:
    if (folder / _WEIGHTS).exists():
        return [folder / _WEIGHTS]
    index = folder / _INDEX
    if not index.exists():
        raise ValueError(
            f"{folder} must hold {_WEIGHTS} or {_INDEX}; other forms, such as pytorch_model.bin, "
            "are not read"
        )
    shards = read_fields(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ValueError(f"{index}: weight_map must name each tensor's file, got {shards!r}")
    names = sorted({str(name) for name in shards.values()})
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"{index}: weight_map must name files beside it, got {name!r}")
    return [folder / name for name in names]


def _check_head(tensors: Tensors, embedding_name: str) -> None:
    head_VD, embedding_VD = (
        tensors.read(name).astype(np.float32) for name in (_HEAD, embedding_name)
    )
    if not np.array_equal(head_VD, embedding_VD):
        raise ValueError(
            f"{tensors.source}: {_HEAD} must equal {embedding_name}, for GPT-2's head is its token "
            f"embedding; the largest difference is {np.max(np.abs(head_VD - embedding_VD)):.3g}"
        )
