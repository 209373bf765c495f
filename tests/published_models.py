"""GPT-2 as others publish it, written from plain arrays, and its forward pass in NumPy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from safetensors.numpy import save_file

from tests.numpy_gpt2 import NumpyGPT2, float64

VOCAB_SIZE, CONTEXT, WIDTH, LAYERS, HEADS = 61, 8, 6, 2, 3
EPSILON = 1e-5

Arrays = dict[str, np.ndarray]

# What Hugging Face's GPT2LMHeadModel wrote for a model of this size (transformers 5.23), and keys
# of older files that change nothing.
CONFIG: dict[str, Any] = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": EPSILON,
    "model_type": "gpt2",
    "n_ctx": CONTEXT,
    "n_embd": WIDTH,
    "n_head": HEADS,
    "n_inner": None,
    "n_layer": LAYERS,
    "n_positions": CONTEXT,
    "reorder_and_upcast_attn": False,
    "resid_pdrop": 0.1,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "summary_type": "cls_index",
    "task_specific_params": {"text-generation": {"do_sample": True}},
    "tie_word_embeddings": True,
    "vocab_size": VOCAB_SIZE,
}
HPARAMS = {
    "n_vocab": VOCAB_SIZE,
    "n_ctx": CONTEXT,
    "n_embd": WIDTH,
    "n_head": HEADS,
    "n_layer": LAYERS,
}


def random_arrays(seed: int = 0, vocab_size: int = VOCAB_SIZE) -> Arrays:
    """Every tensor by Hugging Face's name, drawn; norm scales lie around 1."""
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (vocab_size, WIDTH),
        "wpe.weight": (CONTEXT, WIDTH),
    }
    for layer in range(LAYERS):
        for name, inputs, outputs in (
            ("attn.c_attn", WIDTH, 3 * WIDTH),
            ("attn.c_proj", WIDTH, WIDTH),
            ("mlp.c_fc", WIDTH, 4 * WIDTH),
            ("mlp.c_proj", 4 * WIDTH, WIDTH),
        ):
            shapes[f"h.{layer}.{name}.weight"] = (inputs, outputs)
            shapes[f"h.{layer}.{name}.bias"] = (outputs,)
    for name in ("ln_f", *(f"h.{layer}.ln_{k}" for layer in range(LAYERS) for k in (1, 2))):
        shapes |= {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
    generator = np.random.default_rng(seed)
    return {
        name: (
            0.4 * generator.standard_normal(shape)
            + (1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        ).astype(np.float32)
        for name, shape in shapes.items()
    }


def numpy_gpt2(arrays: Arrays) -> NumpyGPT2:
    """The reference with these arrays, not by way of a model of ours."""
    made = NumpyGPT2.__new__(NumpyGPT2)
    made.num_heads, made.epsilon = HEADS, EPSILON
    made.token_embedding_VD = float64(arrays["wte.weight"])
    made.position_embedding_TD = float64(arrays["wpe.weight"])
    made.final_gamma_D = float64(arrays["ln_f.weight"])
    made.final_beta_D = float64(arrays["ln_f.bias"])
    theirs = {
        "attention_norm/gamma": "ln_1.weight",
        "attention_norm/beta": "ln_1.bias",
        "attention/query_key_value/kernel": "attn.c_attn.weight",
        "attention/query_key_value/bias": "attn.c_attn.bias",
        "attention/output_projection/kernel": "attn.c_proj.weight",
        "attention/output_projection/bias": "attn.c_proj.bias",
        "feed_forward_norm/gamma": "ln_2.weight",
        "feed_forward_norm/beta": "ln_2.bias",
        "feed_forward/expansion/kernel": "mlp.c_fc.weight",
        "feed_forward/expansion/bias": "mlp.c_fc.bias",
        "feed_forward/output_projection/kernel": "mlp.c_proj.weight",
        "feed_forward/output_projection/bias": "mlp.c_proj.bias",
    }
    made.blocks = [
        {ours: float64(arrays[f"h.{layer}.{name}"]) for ours, name in theirs.items()}
        for layer in range(LAYERS)
    ]
    return made


def assert_same_logits(model: Any, arrays: Arrays) -> None:
    """The model computes what the reference computes with these arrays, at every position."""
    ids = np.random.default_rng(1).integers(0, VOCAB_SIZE, CONTEXT)
    expected = numpy_gpt2(arrays).logits(ids)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(model.logits(ids[None])[0], expected, rtol=0, atol=1e-5 * scale)


def prefixed(arrays: Arrays) -> Arrays:
    return {f"transformer.{name}": array for name, array in arrays.items()}


def write_huggingface_form(folder: Path, arrays: Arrays, **changed: Any) -> Path:
    """config.json with some keys changed, or left out (`...` as the value), and the tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in (CONFIG | changed).items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def openai_arrays(arrays: Arrays) -> Arrays:
    """The same numbers under OpenAI's names and in its shapes."""
    names = {"wte.weight": "model/wte", "wpe.weight": "model/wpe"}
    names |= {"ln_f.weight": "model/ln_f/g", "ln_f.bias": "model/ln_f/b"}
    for layer in range(LAYERS):
        for norm in ("ln_1", "ln_2"):
            names[f"h.{layer}.{norm}.weight"] = f"model/h{layer}/{norm}/g"
            names[f"h.{layer}.{norm}.bias"] = f"model/h{layer}/{norm}/b"
        for part in ("attn/c_attn", "attn/c_proj", "mlp/c_fc", "mlp/c_proj"):
            dotted = part.replace("/", ".")
            names[f"h.{layer}.{dotted}.weight"] = f"model/h{layer}/{part}/w"
            names[f"h.{layer}.{dotted}.bias"] = f"model/h{layer}/{part}/b"
    return {
        names[name]: array[None] if names[name].endswith("/w") else array
        for name, array in arrays.items()
    }


def write_openai_form(folder: Path, arrays: Arrays, **changed: Any) -> Path:
    """hparams.json, and what TensorFlow 1's Saver writes for variables of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hparams.json").write_text(json.dumps(HPARAMS | changed))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, array in arrays.items():
            tf.compat.v1.get_variable(name, initializer=array, use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(folder / "model.ckpt"))
    return folder
