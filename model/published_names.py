"""What GPT-2's tensors are called where its weights are published."""

import re

import keras

from model.gpt2 import GPT2


def huggingface_names(model: GPT2, prefix: str = "") -> dict[str, keras.Variable]:
    """Returns every weight of a built model by its name in Hugging Face's files.

    No tensor has to be transposed: their `Conv1D` holds its kernel as [inputs, outputs], as Keras'
    `Dense` does, and query, key and value lie in `c_attn` side by side, each head by head, as here.

    Args:
        model: The model.
        prefix: `transformer.` for a model with an output head.
    """
    layers = {"ln_f": model.final_norm}
    for index, block in enumerate(model.blocks):
        layers |= {
            f"h.{index}.ln_1": block.attention_norm,
            f"h.{index}.attn.c_attn": block.attention.query_key_value,
            f"h.{index}.attn.c_proj": block.attention.output_projection,
            f"h.{index}.ln_2": block.feed_forward_norm,
            f"h.{index}.mlp.c_fc": block.feed_forward.expansion,
            f"h.{index}.mlp.c_proj": block.feed_forward.output_projection,
        }
    named = {
        f"{prefix}wte.weight": model.token_embedding.embeddings,
        f"{prefix}wpe.weight": model.position_embedding.embeddings,
    }
    for name, layer in layers.items():
        is_norm = isinstance(layer, keras.layers.LayerNormalization)
        named[f"{prefix}{name}.weight"] = layer.gamma if is_norm else layer.kernel
        named[f"{prefix}{name}.bias"] = layer.beta if is_norm else layer.bias
    return named


def openai_names(model: GPT2) -> dict[str, keras.Variable]:
    """Returns every weight of a built model by its name in OpenAI's checkpoints."""
    return {_openai_name(name): variable for name, variable in huggingface_names(model).items()}


def _openai_name(name: str) -> str:
    """Returns `model/h0/attn/c_attn/w` for `h.0.attn.c_attn.weight`, and so on."""
    *layer, kind = re.sub(r"^h\.", "h", name).split(".")
    if layer[0] in ("wte", "wpe"):
        return f"model/{layer[0]}"
    weight = "g" if layer[-1].startswith("ln_") else "w"
    return "/".join(["model", *layer, weight if kind == "weight" else "b"])
