"""An exported SavedModel as a source of weights."""

import os

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
    is_int8 = description.get("int8", False)  # not there in a model of before there were any
    if is_int8 and not allow_int8:
        raise ValueError(
            f"{folder} must have weights in floats, got 8 bits: it can be scored and served only"
        )
    model = GPT2(**description["model"])
    model.build((None, model.config.max_length))
    if is_int8:
        round_to_int8(model)
    saved = checkpoint_tensors(folder, os.path.join(folder, "variables", "variables"))
    assign_all(
        {_NAME.format(index): weight for index, weight in enumerate(model.weights)},
        saved.only(lambda name: name.startswith("weights/")),
    )
    return model
