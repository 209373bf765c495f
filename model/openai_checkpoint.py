"""Weights in OpenAI's own form: `hparams.json` and a TensorFlow checkpoint `model.ckpt`."""

import os
from pathlib import Path

import tensorflow as tf

from model.config import GPT2Config
from model.gpt2 import GPT2
from model.huggingface_config import read_fields
from model.named_tensors import Shape, assign_all, checkpoint_tensors
from model.published_names import openai_names

_HPARAMS = "hparams.json"
_SIZES = {
    "n_vocab": "vocab_size",
    "n_ctx": "max_length",
    "n_embd": "embedding_dim",
    "n_head": "num_heads",
    "n_layer": "num_layers",
}


def read_openai(folder: str | os.PathLike[str]) -> GPT2:
    """Returns the GPT-2 in a folder as OpenAI published it (openai/gpt-2, download_model.py).

    Dropout, which `hparams.json` does not have, is our default.

    Raises:
        ValueError: `hparams.json` has other keys or a size out of range; there is no checkpoint or
            it is damaged; or a tensor is missing, extra or of another shape.
    """
    folder = Path(folder)
    config = read_openai_config(folder)
    tensors = checkpoint_tensors(str(folder), str(_prefix(folder)))
    model = GPT2(**config.to_dict())
    model.build((None, config.max_length))
    assign_all(openai_names(model), tensors, _stored_shape)
    return model


def read_openai_config(folder: str | os.PathLike[str]) -> GPT2Config:
    """Returns the configuration of the model in `folder`; reads no weights.

    Raises:
        ValueError: `hparams.json` has other keys or a size out of range.
    """
    path = Path(folder) / _HPARAMS
    fields = read_fields(path)
    if set(fields) != set(_SIZES):
        raise ValueError(f"{path} must have the keys {sorted(_SIZES)}, got {sorted(fields)}")
    for key, value in fields.items():
        if type(value) is not int:
            raise ValueError(f"{path}: {key} must be a whole number, got {value!r}")
    sizes = {ours: fields[theirs] for theirs, ours in _SIZES.items()}
    try:
        # openai/gpt-2, src/model.py: `mlp` is called with 4 * n_embd, `norm` has epsilon 1e-5.
        return GPT2Config(
            **sizes, feed_forward_dim=4 * sizes["embedding_dim"], layer_norm_epsilon=1e-5
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _prefix(folder: Path) -> Path:
    """Returns the path of the checkpoint that the file `checkpoint` names, or of the only one."""
    state = tf.train.get_checkpoint_state(str(folder))
    if state is not None:
        # Where it lay when it was written, which need not be where it lies now.
        prefix = folder / Path(state.model_checkpoint_path).name
        if not prefix.with_name(prefix.name + ".index").exists():
            raise ValueError(f"{folder / 'checkpoint'} names {prefix.name}, which has no .index")
        return prefix
    found = sorted(folder.glob("model.ckpt*.index"))
    if len(found) != 1:
        raise ValueError(
            f"{folder} must hold one model.ckpt*.index or a file checkpoint that says which, "
            f"got {[path.name for path in found]}"
        )
    return found[0].with_suffix("")


def _stored_shape(name: str, shape: Shape) -> Shape:
    """Dense kernels are stored as those of a convolution of width 1."""
    return (1, *shape) if name.endswith("/w") else shape
