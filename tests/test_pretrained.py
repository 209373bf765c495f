"""model/pretrained.py and model/sizes.py: which form it is, and which size."""

import dataclasses
import re

import numpy as np
import pytest

from model.export import export_gpt2
from model.pretrained import find_form, is_exported_model, load_pretrained
from model.sizes import SIZES, check_size
from pipeline.config_file import load_config
from tests.published_models import (
    assert_same_logits,
    openai_arrays,
    random_arrays,
    write_huggingface_form,
    write_openai_form,
)
from tests.small_models import random_gpt2


def test_hugging_faces_form_is_known_by_its_configuration(tmp_path):
    arrays = random_arrays()
    assert_same_logits(load_pretrained(write_huggingface_form(tmp_path, arrays)), arrays)


def test_openais_form_is_known_by_its_hyperparameters(tmp_path):
    arrays = random_arrays()
    folder = write_openai_form(tmp_path, openai_arrays(arrays))
    assert_same_logits(load_pretrained(str(folder)), arrays)


def test_an_exported_model_is_known_by_its_graph(tmp_path):
    model = random_gpt2(vocab_size=50257)
    export_gpt2(model, tmp_path, stride=12)
    for before, after in zip(model.weights, load_pretrained(tmp_path).weights, strict=True):
        np.testing.assert_array_equal(np.array(after), np.array(before))


def test_the_form_is_known_without_reading_what_is_in_it(tmp_path):
    for file in ("saved_model.pb", "config.json", "hparams.json"):
        folder = tmp_path / file
        folder.mkdir()
        (folder / file).touch()
        assert find_form(folder) == file
        assert is_exported_model(str(folder)) == (file == "saved_model.pb")


KNOWN = (
    "must be a folder with one of saved_model.pb (an exported model), config.json (Hugging Face's "
    "form), hparams.json (OpenAI's form), got "
)


def test_a_folder_of_no_known_form_is_refused_with_what_was_looked_for(tmp_path):
    for folder, got in ((tmp_path, "none of them"), (tmp_path / "nowhere", "no such folder")):
        message = re.escape(f"{folder} {KNOWN}{got}")
        for read in (load_pretrained, find_form, is_exported_model):
            with pytest.raises(ValueError, match=f"^{message}$"):
                read(folder)


def test_a_folder_whose_folders_have_a_form_is_refused_with_these(tmp_path):
    for name in ("1", "2", "3"):
        (tmp_path / name).mkdir()
    (tmp_path / "2" / "saved_model.pb").touch()
    (tmp_path / "1" / "config.json").touch()
    message = re.escape(f"{tmp_path} {KNOWN}none of them, but in {tmp_path}/1, {tmp_path}/2")
    with pytest.raises(ValueError, match=f"^{message}$"):
        load_pretrained(tmp_path)


def test_a_folder_of_two_forms_is_refused(tmp_path):
    (tmp_path / "config.json").touch()
    (tmp_path / "hparams.json").touch()
    message = re.escape(f"{tmp_path} {KNOWN}config.json and hparams.json")
    with pytest.raises(ValueError, match=f"^{message}$"):
        load_pretrained(tmp_path)


def test_each_name_has_the_published_size():
    # Parameters as `transformers` counts them; the paper's table 2 has D and the layers.
    counted = {}
    for name, config in SIZES.items():
        width, layers = config.embedding_dim, config.num_layers
        block = 12 * width**2 + 13 * width
        counted[name] = (config.vocab_size + config.max_length + 2) * width + layers * block
        assert config.feed_forward_dim == 4 * width
        assert width // config.num_heads == 64
        assert config.layer_norm_epsilon == 1e-5
    assert counted == {
        "gpt2": 124_439_808,
        "gpt2-medium": 354_823_168,
        "gpt2-large": 774_030_080,
        "gpt2-xl": 1_557_611_200,
    }


@pytest.mark.parametrize("name", sorted(SIZES))
def test_the_configuration_of_the_same_name_has_that_size(name):
    check_size(load_config(name, ["data.path=corpus"]).model, name)


def test_a_size_that_differs_is_told_field_by_field():
    config = dataclasses.replace(SIZES["gpt2-medium"], max_length=512)
    message = (
        "the model is no gpt2: max_length must be 1024, got 512; embedding_dim must be 768, got "
        "1024; num_layers must be 12, got 24; num_heads must be 12, got 16; feed_forward_dim must "
        "be 3072, got 4096"
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_size(config, "gpt2")


def test_what_is_no_size_makes_no_difference():
    check_size(dataclasses.replace(SIZES["gpt2"], dropout=0.0, layer_norm_epsilon=1e-6), "gpt2")


def test_an_unknown_name_is_told_with_the_known_ones():
    with pytest.raises(ValueError, match=r"size must be one of gpt2, gpt2-medium, .*, got 'gpt3'"):
        check_size(SIZES["gpt2"], "gpt3")
