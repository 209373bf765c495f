"""An exported SavedModel as a source of weights."""

import os
from typing import Any

from model.config import GPT2Config
from model.export import read_description
from model.gpt2 import GPT2
from model.int8 import round_to_int8
from model.named_tensors import assign_all, checkpoint_tensors

# How TensorFlow names the variables that `ServedGPT2` holds in its list `weights`.
_NAME = "weights/{}/.ATTRIBUTES/VARIABLE_VALUE"


def load_exported(folder: str | os.PathLike[str], allow_int8: bool = False) -> GPT2:
    """Returns the GPT-2 that `export_gpt2` wrote into `folder`, each weight bit for bit.

    Only the variables are read; the graph, which may have been written by other code, is not.

    Args:
        folder: The SavedModel.
        allow_int8: Whether its weights may be in 8 bits. Such a model can be scored, not trained.

    Raises:
        ValueError: `folder` is no such model, its weights are in 8 bits, or a tensor is missing,
            extra, of another shape or cut off.
    """
    folder = os.fspath(folder)
    description = read_description(folder)
    if not allow_int8:
        _require_floats(folder, description)
    model = GPT2(**description["model"])
    model.build((None, model.config.max_length))
    if _is_int8(description):
        round_to_int8(model)
    saved = checkpoint_tensors(folder, os.path.join(folder, "variables", "variables"))
    assign_all(
        {_NAME.format(index): weight for index, weight in enumerate(model.weights)},
        saved.only(lambda name: name.startswith("weights/")),
    )
    return model


def read_exported_config(folder: str | os.PathLike[str]) -> GPT2Config:
    """Returns the configuration of the model in `folder`; reads no weights.

    Raises:
        ValueError: `folder` is no model that `export_gpt2` wrote, or its weights are in 8 bits.
    """
    description = read_description(folder)
    _require_floats(folder, description)
    return GPT2Config(**description["model"])


def _require_floats(folder: str | os.PathLike[str], description: dict[str, Any]) -> None:
    if _is_int8(description):
        raise ValueError(
            f"{os.fspath(folder)} must have weights in floats, got 8 bits, which can be scored and "
            "served only; its run, once more with serving.int8=false, exports floats"
        )


def _is_int8(description: dict[str, Any]) -> bool:
    return description.get("int8", False)  # not there in a model of before there were any
