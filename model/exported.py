"""An exported SavedModel as a source of weights."""

import os

from model.export import read_description
from model.gpt2 import GPT2
from model.named_tensors import assign_all, checkpoint_tensors

# How TensorFlow names the variables that `ServedGPT2` holds in its list `weights`.
_NAME = "weights/{}/.ATTRIBUTES/VARIABLE_VALUE"


def load_exported(folder: str | os.PathLike[str]) -> GPT2:
    """Returns the GPT-2 that `export_gpt2` wrote into `folder`, each weight bit for bit.

    Only the variables are read; the graph, which may have been written by other code, is not.

    Raises:
        ValueError: `folder` is no such model, or a tensor is missing, extra, of another shape or
            cut off.
    """
    folder = os.fspath(folder)
    model = GPT2(**read_description(folder)["model"])
    model.build((None, model.config.max_length))
    saved = checkpoint_tensors(folder, os.path.join(folder, "variables", "variables"))
    assign_all(
        {_NAME.format(index): weight for index, weight in enumerate(model.weights)},
        saved.only(lambda name: name.startswith("weights/")),
    )
    return model
