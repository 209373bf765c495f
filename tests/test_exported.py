"""model/exported.py: what was exported comes back as it was."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.config import GPT2Config
from model.export import export_gpt2, read_description, read_stride
from model.exported import load_exported
from model.gpt2 import GPT2
from model.unigram import export_unigram
from tests.numpy_gpt2 import NumpyGPT2
from tests.small_models import random_gpt2

SIZES: dict[str, Any] = {
    "vocab_size": 50257,
    "max_length": 5,
    "embedding_dim": 6,
    "num_layers": 2,
    "num_heads": 3,
    "feed_forward_dim": 7,
    "dropout": 0.25,
    "layer_norm_epsilon": 1e-5,
}


@pytest.fixture(scope="module")
def model() -> GPT2:
    return random_gpt2(seed=3, **SIZES)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "1"
    export_gpt2(model, path, stride=4, start="weights: elsewhere")
    return path


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    """One that a test may spoil."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_the_description_says_what_was_exported(folder):
    assert json.loads((folder / "assets.extra" / "gpt2.json").read_text()) == {
        "model": SIZES,
        "stride": 4,
        "start": "weights: elsewhere",
        "int8": False,
    }
    assert read_description(folder)["model"] == SIZES
    assert read_stride(folder) == 4


def test_unless_it_is_told_otherwise_training_started_from_scratch(model, tmp_path):
    export_gpt2(model, tmp_path, stride=5)
    assert read_description(tmp_path)["start"] == "scratch"


def test_every_weight_comes_back_bit_for_bit(model, folder):
    loaded = load_exported(folder)
    assert loaded.config == GPT2Config(**SIZES)
    for number, (before, after) in enumerate(zip(model.weights, loaded.weights, strict=True)):
        np.testing.assert_array_equal(np.array(after), np.array(before), err_msg=str(number))
    ids = [3, 1, 4, 1, 5]
    np.testing.assert_allclose(
        loaded.logits(np.array([ids]))[0], NumpyGPT2(model).logits(ids), rtol=1e-4, atol=1e-4
    )


def test_the_graph_is_not_read(model, copied):
    (copied / "saved_model.pb").write_bytes(b"from another time")
    np.testing.assert_array_equal(
        np.array(load_exported(copied).final_norm.gamma), np.array(model.final_norm.gamma)
    )


def test_a_model_that_does_not_fit_its_description_is_refused_with_every_tensor(copied):
    fields = read_description(copied)
    fields["model"] |= {"max_length": 9, "num_layers": 1}
    (copied / "assets.extra" / "gpt2.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="does not hold this model's tensors") as error:
        load_exported(copied)
    lines = str(error.value).splitlines()[1:]
    assert "  wrong shape: weights/1/.ATTRIBUTES/VARIABLE_VALUE must be [9, 6], got [5, 6]" in lines
    # One block less: 12 tensors.
    assert sum(line.startswith("  extra: weights/") for line in lines) == 12


def test_a_saved_model_that_is_no_gpt2_of_ours_is_refused(tmp_path):
    export_unigram(np.zeros(3, np.int64), tmp_path)
    with pytest.raises(ValueError, match=f"^{tmp_path} must be a model that was exported here"):
        load_exported(tmp_path)


def test_variables_that_were_cut_off_are_an_error(copied):
    for path in (copied / "variables").glob("variables.data-*"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"^{copied} is not a whole checkpoint: weights/0/"):
        load_exported(copied)


def test_variables_that_are_not_there_are_an_error(copied):
    shutil.rmtree(copied / "variables")
    with pytest.raises(ValueError, match=f"^{copied} is not a whole checkpoint: "):
        load_exported(copied)
