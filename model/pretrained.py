"""A GPT-2 from any form of weights that is known here."""

import os

import tensorflow as tf

from model.config import GPT2Config
from model.exported import load_exported, read_exported_config
from model.gpt2 import GPT2
from model.huggingface import read_huggingface, read_huggingface_config
from model.openai_checkpoint import read_openai, read_openai_config

_SAVED_MODEL = "saved_model.pb"

# The file by which a form is known, the form, and what reads its configuration and all of it.
_FORMS = {
    _SAVED_MODEL: ("an exported model", read_exported_config, load_exported),
    "config.json": ("Hugging Face's form", read_huggingface_config, read_huggingface),
    "hparams.json": ("OpenAI's form", read_openai_config, read_openai),
}


def find_form(folder: str | os.PathLike[str]) -> str:
    """Returns the file by which the form of the weights in `folder` is known; reads none of them.

    Raises:
        ValueError: `folder` is none, or has none of the forms or more than one.
    """
    found = [file for file in _FORMS if tf.io.gfile.exists(os.path.join(folder, file))]
    if len(found) != 1:
        known = ", ".join(f"{file} ({form})" for file, (form, *_) in _FORMS.items())
        got = " and ".join(found) or _nothing_in(folder)
        raise ValueError(f"{os.fspath(folder)} must be a folder with one of {known}, got {got}")
    return found[0]


def _nothing_in(folder: str | os.PathLike[str]) -> str:
    """Returns what to say of a folder without any form, with those in it that have one."""
    if not tf.io.gfile.isdir(folder):
        return "no such folder"
    below = {
        os.path.dirname(path)
        for file in _FORMS
        for path in tf.io.gfile.glob(os.path.join(folder, "*", file))
    }
    return f"none of them, but in {', '.join(sorted(below))}" if below else "none of them"


def is_exported_model(folder: str | os.PathLike[str]) -> bool:
    """Returns whether the weights in `folder` are an exported model's, see `find_form`."""
    return find_form(folder) == _SAVED_MODEL


def read_pretrained_config(folder: str | os.PathLike[str]) -> GPT2Config:
    """Returns the configuration of the GPT-2 in `folder`; reads no weights.

    Raises:
        ValueError: As `find_form`, the configuration is none of a GPT-2, or the weights are in 8
            bits.
    """
    _, read_config, _ = _FORMS[find_form(folder)]
    return read_config(folder)


def load_pretrained(folder: str | os.PathLike[str], allow_int8: bool = False) -> GPT2:
    """Returns the GPT-2 in `folder`, whichever of the three forms it has.

    Args:
        folder: Where the weights are.
        allow_int8: As in `load_exported`.

    Raises:
        ValueError: As `find_form`, or what is in `folder` does not make a GPT-2.
    """
    form = find_form(folder)
    if form == _SAVED_MODEL:
        return load_exported(folder, allow_int8)
    _, _, read = _FORMS[form]
    return read(folder)
