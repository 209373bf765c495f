"""model/huggingface.py: files of Hugging Face's form, made here from plain arrays."""

import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from model.config import GPT2Config
from model.huggingface import read_huggingface, write_huggingface
from tests.published_models import (
    CONTEXT,
    HEADS,
    LAYERS,
    VOCAB_SIZE,
    WIDTH,
    assert_same_logits,
    prefixed,
    random_arrays,
    write_huggingface_form,
)
from tests.small_models import random_gpt2


def lines_of(error: pytest.ExceptionInfo[ValueError]) -> list[str]:
    return [line.strip() for line in str(error.value).splitlines()[1:]]


@pytest.mark.parametrize("rename", [dict, prefixed], ids=["without prefix", "with prefix"])
def test_a_model_is_read_with_and_without_the_prefix(tmp_path, rename):
    arrays = random_arrays()
    model = read_huggingface(write_huggingface_form(tmp_path, rename(arrays)))
    assert model.config == GPT2Config(
        vocab_size=VOCAB_SIZE,
        max_length=CONTEXT,
        embedding_dim=WIDTH,
        num_layers=LAYERS,
        num_heads=HEADS,
        feed_forward_dim=4 * WIDTH,
        dropout=0.1,
        layer_norm_epsilon=1e-5,
    )
    assert_same_logits(model, arrays)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rename", [dict, prefixed])
def test_a_head_that_is_stored_once_more_is_accepted(tmp_path, rename, tied):
    arrays = random_arrays()
    stored = rename(arrays) | {"lm_head.weight": arrays["wte.weight"]}
    folder = write_huggingface_form(tmp_path, stored, tie_word_embeddings=tied)
    assert_same_logits(read_huggingface(folder), arrays)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_of_its_own_is_refused_with_the_difference(tmp_path, tied):
    arrays = random_arrays()
    head = arrays["wte.weight"].copy()
    head[7, 2] += 0.25
    stored = prefixed(arrays) | {"lm_head.weight": head}
    folder = write_huggingface_form(tmp_path, stored, tie_word_embeddings=tied)
    message = (
        f"{folder}: lm_head.weight must equal transformer.wte.weight, for GPT-2's head is its "
        "token embedding; the largest difference is 0.25"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_huggingface(folder)


def test_an_untied_head_that_is_not_there_is_missing(tmp_path):
    folder = write_huggingface_form(tmp_path, random_arrays(), tie_word_embeddings=False)
    with pytest.raises(ValueError, match="does not hold this model's tensors") as error:
        read_huggingface(folder)
    assert lines_of(error) == ["missing: lm_head.weight [61, 6]"]


@pytest.mark.parametrize("rename", [dict, prefixed])
def test_the_masks_of_older_files_are_ignored(tmp_path, rename):
    arrays = random_arrays()
    mask = np.tril(np.ones((1, 1, CONTEXT, CONTEXT), np.uint8))
    buffers: dict[str, np.ndarray] = {}
    for layer in range(LAYERS):
        buffers[f"h.{layer}.attn.bias"] = mask
        buffers[f"h.{layer}.attn.masked_bias"] = np.array(-1e4, np.float32)
    folder = write_huggingface_form(tmp_path, rename(arrays | buffers))
    assert_same_logits(read_huggingface(folder), arrays)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_sixteen_bit_tensors_become_float32(tmp_path, dtype):
    stored = {name: array.astype(dtype) for name, array in random_arrays().items()}
    model = read_huggingface(write_huggingface_form(tmp_path, stored))
    assert {weight.dtype for weight in model.weights} == {"float32"}
    exactly = {name: array.astype(np.float32) for name, array in stored.items()}
    np.testing.assert_array_equal(np.array(model.token_embedding.embeddings), exactly["wte.weight"])
    assert_same_logits(model, exactly)


def write_shards(folder: Path, arrays: dict[str, np.ndarray]) -> list[str]:
    """Two files and the index that says which tensor is where."""
    write_huggingface_form(folder, arrays)
    (folder / "model.safetensors").unlink()
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    shards: list[dict[str, np.ndarray]] = [{}, {}]
    for number, (name, array) in enumerate(arrays.items()):
        shards[number % 2][name] = array
    for file, shard in zip(files, shards, strict=True):
        save_file(shard, folder / file, metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": sum(array.nbytes for array in arrays.values())},
        "weight_map": {
            name: file for file, shard in zip(files, shards, strict=True) for name in shard
        },
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return files


def test_a_model_in_shards_is_read(tmp_path):
    arrays = random_arrays()
    write_shards(tmp_path, prefixed(arrays))
    assert_same_logits(read_huggingface(tmp_path), arrays)


def test_a_shard_that_is_not_there_is_an_error_with_its_name(tmp_path):
    files = write_shards(tmp_path, random_arrays())
    (tmp_path / files[1]).unlink()
    with pytest.raises(ValueError, match=f"^{tmp_path / files[1]} is not a whole safetensors file"):
        read_huggingface(tmp_path)


def test_a_tensor_in_two_shards_is_an_error(tmp_path):
    arrays = random_arrays()
    files = write_shards(tmp_path, arrays)
    save_file(arrays, tmp_path / files[1])
    with pytest.raises(ValueError, match=f"{files[1]}: another file of {tmp_path} holds "):
        read_huggingface(tmp_path)


def test_an_index_that_leads_out_of_the_folder_is_an_error(tmp_path):
    write_shards(tmp_path, random_arrays())
    index = {"weight_map": {"wte.weight": "../elsewhere.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"weight_map must name files beside it, got '\.\./else"):
        read_huggingface(tmp_path)


def test_missing_extra_and_misfit_tensors_are_listed_together(tmp_path):
    arrays = random_arrays()
    del arrays["h.0.ln_1.bias"], arrays["wpe.weight"]
    arrays["h.2.ln_1.bias"] = np.zeros(WIDTH, np.float32)
    arrays["h.1.mlp.c_fc.weight"] = arrays["h.1.mlp.c_fc.weight"].T.copy()
    arrays["ln_f.weight"] = arrays["ln_f.weight"].astype(np.int32)
    folder = write_huggingface_form(tmp_path, prefixed(arrays))
    with pytest.raises(ValueError, match=f"^{tmp_path} does not hold this model's t") as error:
        read_huggingface(folder)
    assert lines_of(error) == [
        "missing: transformer.wpe.weight [8, 6]",
        "missing: transformer.h.0.ln_1.bias [6]",
        "extra: transformer.h.2.ln_1.bias [6]",
        "wrong shape: transformer.h.1.mlp.c_fc.weight must be [6, 24], got [24, 6]",
        "wrong type: transformer.ln_f.weight must be float32, float16, bfloat16, got I32",
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_tensors_with_numbers_that_are_not_finite_are_listed(tmp_path, dtype):
    arrays = {name: array.astype(dtype) for name, array in random_arrays().items()}
    arrays["wpe.weight"][3] = np.nan
    arrays["h.1.mlp.c_fc.weight"][2, 1] = -np.inf
    folder = write_huggingface_form(tmp_path, arrays)
    with pytest.raises(ValueError, match=f"^{tmp_path} does not hold this model's t") as error:
        read_huggingface(folder)
    assert lines_of(error) == [
        f"not finite: {WIDTH} numbers of wpe.weight",
        "not finite: 1 numbers of h.1.mlp.c_fc.weight",
    ]


@pytest.mark.parametrize(
    ("changed", "lines"),
    [
        ({"model_type": "bert"}, ["model_type must be \"gpt2\", got 'bert'"]),
        (
            {"activation_function": "gelu", "scale_attn_weights": False},
            [
                'activation_function must be "gelu_new" or "gelu_pytorch_tanh", got \'gelu\'',
                "scale_attn_weights must be true, got False",
            ],
        ),
        (
            {"scale_attn_by_inverse_layer_idx": True, "add_cross_attention": True},
            [
                "scale_attn_by_inverse_layer_idx must be false, got True",
                "add_cross_attention must be false, got True",
            ],
        ),
        ({"n_head": ...}, ["n_head must be a whole number, got None"]),
        ({"n_layer": "2"}, ["n_layer must be a whole number, got '2'"]),
        ({"n_ctx": 16}, ["n_ctx must be n_positions=8, got 16"]),
        (
            {"attn_pdrop": 0.2},
            [
                "resid_pdrop, embd_pdrop, attn_pdrop must be one number, "
                "got resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.2"
            ],
        ),
        (
            {"quantization_config": {"bits": 4}},
            ["quantization_config must be null, got {'bits': 4}"],
        ),
    ],
)
def test_a_configuration_that_computes_something_else_is_refused(tmp_path, changed, lines):
    folder = write_huggingface_form(tmp_path, random_arrays(), **changed)
    with pytest.raises(ValueError, match=f"^{tmp_path}/config.json describes a model") as error:
        read_huggingface(folder)
    assert lines_of(error) == lines


def test_a_size_out_of_range_is_told_with_the_file(tmp_path):
    folder = write_huggingface_form(tmp_path, random_arrays(), n_head=4)
    with pytest.raises(ValueError, match=r"config\.json: num_heads must divide embedding_dim, got"):
        read_huggingface(folder)


def test_what_an_older_configuration_leaves_out_has_hugging_faces_default(tmp_path):
    arrays = random_arrays()
    left_out = (
        "n_positions",
        "n_inner",
        "layer_norm_epsilon",
        "activation_function",
        "resid_pdrop",
        "scale_attn_weights",
        "tie_word_embeddings",
    )
    folder = write_huggingface_form(tmp_path, arrays, **dict.fromkeys(left_out, ...))
    model = read_huggingface(folder)
    assert model.config.dropout == 0.1
    assert_same_logits(model, arrays)


@pytest.mark.parametrize("content", [b"{", b"[]", None])
def test_a_configuration_that_is_no_json_object_is_an_error(tmp_path, content):
    write_huggingface_form(tmp_path, random_arrays())
    (tmp_path / "config.json").unlink()
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{tmp_path}/config.json "):
        read_huggingface(tmp_path)


def test_a_file_that_was_cut_off_is_an_error(tmp_path):
    path = write_huggingface_form(tmp_path, random_arrays()) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"^{path} is not a whole safetensors file: "):
        read_huggingface(tmp_path)


def test_weights_in_a_form_that_is_not_read_are_an_error(tmp_path):
    path = write_huggingface_form(tmp_path, random_arrays()) / "model.safetensors"
    path.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=f"^{tmp_path} must hold model.safetensors or model.safe"):
        read_huggingface(tmp_path)


def test_what_is_written_is_what_hugging_face_writes(tmp_path):
    model = random_gpt2(vocab_size=VOCAB_SIZE, feed_forward_dim=20, layer_norm_epsilon=1e-6)
    write_huggingface(model, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert len(modes) == 1  # who may read the one may read the other
    with safe_open(tmp_path / "out" / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert set(tensors) == set(prefixed(random_arrays()))
    assert tensors["transformer.h.1.mlp.c_fc.weight"].shape == (12, 20)
    np.testing.assert_array_equal(
        tensors["transformer.h.1.attn.c_proj.weight"],
        np.array(model.blocks[1].attention.output_projection.kernel),
    )
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": 61,
        "n_positions": 12,
        "n_embd": 12,
        "n_layer": 2,
        "n_head": 3,
        "n_inner": 20,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-6,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "dtype": "float32",
    }


@pytest.mark.parametrize("feed_forward_dim", [20, 48])
def test_what_was_written_is_read_bit_for_bit(tmp_path, feed_forward_dim):
    model = random_gpt2(
        vocab_size=50257, feed_forward_dim=feed_forward_dim, dropout=0.25, layer_norm_epsilon=1e-6
    )
    write_huggingface(model, tmp_path / "out")
    again = read_huggingface(tmp_path / "out")
    assert again.config == model.config
    for before, after in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(np.array(after), np.array(before))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["bos_token_id"] == config["eos_token_id"] == 50256


@pytest.mark.parametrize("is_file", [True, False])
def test_nothing_is_written_over(tmp_path, is_file):
    out = tmp_path / "out"
    out.write_text("precious") if is_file else out.mkdir()
    with pytest.raises(ValueError, match=f"^{out} exists already"):
        write_huggingface(random_gpt2(), out)
    assert list(tmp_path.iterdir()) == [out]


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("model.huggingface.save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        write_huggingface(random_gpt2(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
