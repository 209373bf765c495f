"""A GPT-2 from any form of weights that is known here."""

import os

import tensorflow as tf

from model.exported import load_exported
from model.gpt2 import GPT2
from model.huggingface import read_huggingface
from model.openai_checkpoint import read_openai

_SAVED_MODEL = "saved_model.pb"

# The file by which a form is known, the form, and what reads it.
_FORMS = (
    (_SAVED_MODEL, "an exported model", load_exported),
    ("config.json", "Hugging Face's form", read_huggingface),
    ("hparams.json", "OpenAI's form", read_openai),
)


def is_exported_model(folder: str | os.PathLike[str]) -> bool:
    """Returns whether `folder` holds a SavedModel."""
    return tf.io.gfile.exists(os.path.join(folder, _SAVED_MODEL))


def load_pretrained(folder: str | os.PathLike[str]) -> GPT2:
    """Returns the GPT-2 in `folder`, whichever of the three forms it has.

    Raises:
        ValueError: `folder` has none of the forms, or more than one, or what is in it does not
            make a GPT-2.
    """
    folder = os.fspath(folder)
    found = [form for form in _FORMS if tf.io.gfile.exists(os.path.join(folder, form[0]))]
    if len(found) != 1:
        known = ", ".join(f"{file} ({form})" for file, form, _ in _FORMS)
        got = " and ".join(file for file, _, _ in found) or "none of them"
        raise ValueError(f"{folder} must be a folder with one of {known}, got {got}")
    _, _, read = found[0]
    return read(folder)
