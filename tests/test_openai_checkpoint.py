"""model/openai_checkpoint.py: files of OpenAI's form, made here from plain arrays."""

import json

import numpy as np
import pytest

from model.config import GPT2Config
from model.openai_checkpoint import read_openai
from tests.published_models import (
    CONTEXT,
    HEADS,
    HPARAMS,
    LAYERS,
    VOCAB_SIZE,
    WIDTH,
    assert_same_logits,
    openai_arrays,
    random_arrays,
    write_openai_form,
)


def test_a_checkpoint_of_openais_is_read(tmp_path):
    arrays = random_arrays()
    model = read_openai(write_openai_form(tmp_path, openai_arrays(arrays)))
    assert model.config == GPT2Config(
        vocab_size=VOCAB_SIZE,
        max_length=CONTEXT,
        embedding_dim=WIDTH,
        num_layers=LAYERS,
        num_heads=HEADS,
        feed_forward_dim=4 * WIDTH,
        layer_norm_epsilon=1e-5,
    )
    assert_same_logits(model, arrays)


def test_a_checkpoint_is_found_without_the_file_that_names_it(tmp_path):
    arrays = random_arrays()
    write_openai_form(tmp_path, openai_arrays(arrays))
    (tmp_path / "checkpoint").unlink()
    assert_same_logits(read_openai(tmp_path), arrays)


def test_a_folder_that_was_moved_is_read_where_it_is(tmp_path):
    arrays, others = random_arrays(seed=1), random_arrays(seed=2)
    write_openai_form(tmp_path / "moved", openai_arrays(arrays))
    write_openai_form(tmp_path / "old", openai_arrays(others))
    (tmp_path / "moved" / "checkpoint").write_text(
        f'model_checkpoint_path: "{tmp_path}/old/model.ckpt"\n'
    )
    assert_same_logits(read_openai(tmp_path / "moved"), arrays)


def test_a_checkpoint_that_is_not_there_is_an_error(tmp_path):
    write_openai_form(tmp_path, openai_arrays(random_arrays()))
    (tmp_path / "model.ckpt.index").unlink()
    with pytest.raises(ValueError, match=r"checkpoint names model\.ckpt, which has no \.index"):
        read_openai(tmp_path)
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(ValueError, match=r"must hold one model\.ckpt\*\.index or .*, got \[\]"):
        read_openai(tmp_path)


def test_a_checkpoint_that_was_cut_off_is_an_error(tmp_path):
    write_openai_form(tmp_path, openai_arrays(random_arrays()))
    for path in tmp_path.glob("model.ckpt.data-*"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"^{tmp_path} is not a whole checkpoint: "):
        read_openai(tmp_path)


def test_missing_extra_and_misfit_tensors_are_listed_together(tmp_path):
    arrays = openai_arrays(random_arrays())
    del arrays["model/ln_f/b"]
    arrays["model/h2/ln_1/g"] = np.ones(WIDTH, np.float32)
    arrays["model/wpe"] = arrays["model/wpe"][:5]
    arrays["model/h0/attn/c_attn/w"] = arrays["model/h0/attn/c_attn/w"][0]
    write_openai_form(tmp_path, arrays)
    with pytest.raises(ValueError, match=f"^{tmp_path} does not hold this model's t") as error:
        read_openai(tmp_path)
    assert [line.strip() for line in str(error.value).splitlines()[1:]] == [
        "missing: model/ln_f/b [6]",
        "extra: model/h2/ln_1/g [6]",
        "wrong shape: model/wpe must be [8, 6], got [5, 6]",
        "wrong shape: model/h0/attn/c_attn/w must be [1, 6, 18], got [6, 18]",
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (HPARAMS | {"res_dropout": 0.1}, r"must have the keys \['n_ctx', .*, got \[.*'res_dropout"),
        ({"n_vocab": 5}, r"must have the keys \['n_ctx', .*, got \['n_vocab'\]"),
        (HPARAMS | {"n_embd": None}, "n_embd must be a whole number, got None"),
        (HPARAMS | {"n_layer": 0}, "num_layers must be a whole number >= 1, got 0"),
    ],
)
def test_hyperparameters_that_do_not_describe_a_gpt2_are_refused(tmp_path, fields, message):
    (tmp_path / "hparams.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=f"^{tmp_path}/hparams.json:? {message}"):
        read_openai(tmp_path)
