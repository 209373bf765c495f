"""Hugging Face's `config.json` of a GPT-2."""

import json
from pathlib import Path
from typing import Any

from model.config import GPT2Config
from model.tokenizer import END_OF_TEXT

_SIZES = {
    "vocab_size": "vocab_size",
    "n_positions": "max_length",
    "n_embd": "embedding_dim",
    "n_layer": "num_layers",
    "n_head": "num_heads",
}
_DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")

# What decides what is computed, the values that say what is computed here, and what a file without
# the key means (transformers, GPT2Config). Both activations are GELU's tanh form.
_SUPPORTED: dict[str, tuple[tuple[Any, ...], Any]] = {
    "model_type": (("gpt2",), None),
    "activation_function": (("gelu_new", "gelu_pytorch_tanh"), "gelu_new"),
    "scale_attn_weights": ((True,), True),
    "scale_attn_by_inverse_layer_idx": ((False,), False),
    "add_cross_attention": ((False,), False),
    # Changes the order of operations in 16 bits only. Here softmax is in float32 in any case.
    "reorder_and_upcast_attn": ((False, True), False),
    # Whether the file holds the head once more; the reader compares it with the embedding.
    "tie_word_embeddings": ((True, False), True),
    "quantization_config": ((None,), None),
}


def read_fields(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
        ValueError: It is missing, or no JSON object.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(fields).__name__}")
    return fields


def to_gpt2_config(fields: dict[str, Any], path: Path) -> GPT2Config:
    """Returns the configuration that computes what Hugging Face computes by `config.json`.

    The sizes must be given. Keys that do not touch what is computed are ignored.

    Args:
        fields: The file's keys and values.
        path: The file, for messages.

    Raises:
        ValueError: A size is missing or out of range, or a value has no counterpart here; the
            message has every such key, its value and the rule.
    """
    given = fields if "n_positions" in fields else fields | {"n_positions": fields.get("n_ctx")}
    problems = [
        f"{key} must be a whole number, got {given.get(key)!r}"
        for key in _SIZES
        if type(given.get(key)) is not int
    ]
    if fields.get("n_ctx") not in (None, given["n_positions"]):
        problems.append(
            f"n_ctx must be n_positions={given['n_positions']!r}, got {fields['n_ctx']!r}"
        )
    for key, (supported, default) in _SUPPORTED.items():
        value = fields.get(key, default)
        if value not in supported:
            rule = " or ".join(json.dumps(one) for one in supported)
            problems.append(f"{key} must be {rule}, got {value!r}")
    dropouts = {key: fields.get(key, 0.1) for key in _DROPOUTS}
    if any(value != dropouts["resid_pdrop"] for value in dropouts.values()):
        listed = ", ".join(f"{key}={value!r}" for key, value in dropouts.items())
        problems.append(f"{', '.join(_DROPOUTS)} must be one number, got {listed}")
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise ValueError(f"{path} describes a model that is none of ours:\n{listed}")

    feed_forward_dim = fields.get("n_inner")
    try:
        return GPT2Config(
            **{ours: given[theirs] for theirs, ours in _SIZES.items()},
            feed_forward_dim=4 * given["n_embd"] if feed_forward_dim is None else feed_forward_dim,
            dropout=dropouts["resid_pdrop"],
            layer_norm_epsilon=fields.get("layer_norm_epsilon", 1e-5),
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def from_gpt2_config(config: GPT2Config) -> dict[str, Any]:
    """Returns the keys and values of `config.json`, as transformers 5 writes them."""
    end_of_text = END_OF_TEXT if config.vocab_size > END_OF_TEXT else None
    is_usual = config.feed_forward_dim == 4 * config.embedding_dim
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **{theirs: getattr(config, ours) for theirs, ours in _SIZES.items()},
        "n_inner": None if is_usual else config.feed_forward_dim,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": config.layer_norm_epsilon,
        **dict.fromkeys(_DROPOUTS, config.dropout),
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
        "tie_word_embeddings": True,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "dtype": "float32",
    }
