"""The SavedModel that is evaluated and served."""

import json
import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from model.gpt2 import GPT2
from model.int8 import int8_copy
from model.served import ServedGPT2
from model.tokenizer import VOCAB_SIZE
from model.warm_up import write_warm_up

_DESCRIPTION = os.path.join("assets.extra", "gpt2.json")

# Of a warm-up's prompts; fewer where the context is short.
_WARM_UP_NEW_TOKENS = 8


def export_gpt2(
    model: GPT2,
    folder: str | os.PathLike[str],
    stride: int,
    *,
    start: str = "scratch",
    xla: bool = False,
    int8: bool = False,
    warm_up_prompts: Sequence[str] = (),
) -> None:
    """Writes a SavedModel with the signatures of `ServedGPT2` into `folder`.

    `assets.extra/gpt2.json`, which servers ignore, has what the variables alone do not tell:
    `model`, the fields of `GPT2Config`; `stride`, with which it scores; `start`; and `int8`.

    Args:
        model: The model.
        folder: Where it goes.
        stride: How far `score` and `evaluate` move their window, in tokens, see `document_nll`.
        start: Where the model's training started.
        xla: Whether generation is compiled by XLA when it runs: faster, but only a server on which
            XLA is enabled can run it. Without it any can.
        int8: Whether the weights are rounded to 8 bits, see `model/int8.py`: less to read at each
            token of one prompt alone, slower for several. Only with `xla`.
        warm_up_prompts: What a server continues before it makes the model available; they and a
            few tokens more must fit the context. None are written if there are none.

    Raises:
        ValueError: `stride` is out of its range, `int8` is without `xla`, the model's weights are
            in 8 bits already, or the vocabulary is not GPT-2's, whose `<|endoftext|>` scoring and
            generation rely on.
    """
    config = model.config
    if config.vocab_size != VOCAB_SIZE:
        raise ValueError(
            f"vocab_size must be {VOCAB_SIZE}, the size of GPT-2's vocabulary, for a model to be "
            f"scored or served, got {config.vocab_size}"
        )
    if model.is_int8:
        raise ValueError("the model must have weights in floats, got 8 bits")
    if int8 and not xla:
        raise ValueError("xla must be true where int8 is true, which is slow without")
    served = ServedGPT2(int8_copy(model) if int8 else model, stride, xla)
    # With gradients, TensorFlow's loader enters them in a table of the process, from which nothing
    # is ever deleted: a server that loads one version after the other would keep all their graphs.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(served, os.fspath(folder), served.signatures(), options)
    description = {"model": config.to_dict(), "stride": stride, "start": start, "int8": int8}
    tf.io.gfile.makedirs(os.path.join(folder, os.path.dirname(_DESCRIPTION)))
    with tf.io.gfile.GFile(os.path.join(folder, _DESCRIPTION), "w") as file:
        file.write(json.dumps(description, indent=2) + "\n")
    if warm_up_prompts:
        write_warm_up(folder, warm_up_prompts, min(_WARM_UP_NEW_TOKENS, config.max_length // 4))


def read_description(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns `model`, `stride`, `start` and `int8`, as `export_gpt2` wrote them into `folder`.

    Raises:
        ValueError: There is no such description.
    """
    path = os.path.join(folder, _DESCRIPTION)
    try:
        with tf.io.gfile.GFile(path) as file:
            return json.loads(file.read())
    except tf.errors.NotFoundError as error:
        raise ValueError(
            f"{os.fspath(folder)} must be a model that was exported here, but has no {_DESCRIPTION}"
        ) from error


def read_stride(folder: str | os.PathLike[str]) -> int:
    """Returns the stride, in tokens, with which the SavedModel in `folder` scores documents."""
    return int(read_description(folder)["stride"])
