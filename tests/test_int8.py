"""model/int8.py: the weights in 8 bits, what they compute, and where they are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.start import find_start
from model.decoder import Decoder
from model.export import export_gpt2, read_description
from model.exported import load_exported
from model.gpt2 import GPT2
from model.int8 import int8_copy
from pipeline.score import score_files
from tests.numpy_gpt2 import NumpyGPT2, windows_nll
from tests.saved_models import Served
from tests.small_models import random_gpt2
from tests.test_generation import call, plain_greedy

CONTEXT = 16


def rounded_by_numpy(model: GPT2) -> GPT2:
    """A float32 model with the weights that one in 8 bits stands for."""
    rounded = GPT2(**model.config.to_dict())
    rounded.build((None, model.config.max_length))
    for new, old in zip(rounded.weights, model.weights, strict=True):
        value = np.array(old, np.float64)
        if old.name == "kernel":
            value = to_steps(value, axis=0)
        elif old.path.endswith("token_embedding/embeddings"):
            value = to_steps(value, axis=1)
        new.assign(value)
    return rounded


def to_steps(value: np.ndarray, axis: int) -> np.ndarray:
    step = np.abs(value).max(axis, keepdims=True) / 127
    return np.round(value / step) * step


@pytest.fixture(scope="module")
def model() -> GPT2:
    return random_gpt2(
        scale=0.5, vocab_size=50257, max_length=CONTEXT, embedding_dim=12, num_heads=2
    )


@pytest.fixture(scope="module")
def rounded(model) -> NumpyGPT2:
    return NumpyGPT2(rounded_by_numpy(model))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "1"
    export_gpt2(model, path, stride=CONTEXT, xla=True, int8=True)
    return path


def test_the_logits_are_those_of_the_rounded_weights_and_not_of_the_others():
    # Small, so that no weight lies in the middle of two steps, but for NumPy's more digits.
    model = random_gpt2(scale=0.5)
    rounded, ids = NumpyGPT2(rounded_by_numpy(model)), [3, 1, 4, 1, 5]
    found = int8_copy(model).logits(np.array([ids]))[0].numpy()
    np.testing.assert_allclose(found, rounded.logits(ids), rtol=1e-4, atol=1e-4)
    assert np.abs(found - NumpyGPT2(model).logits(ids)).max() > 0.01


def test_matrices_are_in_8_bits_and_the_rest_and_the_original_are_not(model):
    before = [np.array(weight) for weight in model.weights]
    copy = int8_copy(model)
    assert {weight.name for weight in copy.weights if weight.dtype == "int8"} == {
        "embeddings",
        "kernel",
    }
    assert sum(weight.dtype == "int8" for weight in copy.weights) == 1 + 4 * len(copy.blocks)
    assert copy.position_embedding.embeddings.dtype == "float32"
    assert copy.is_int8
    assert not model.is_int8
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(np.array(weight), value)


@pytest.mark.parametrize("prompts", [[[2, 3, 4, 5, 6]], [[1], [2, 3, 4, 5, 6], [8, 9, 10]]])
def test_one_row_and_several_are_continued_by_the_rounded_weights(model, rounded, prompts):
    expected = [plain_greedy(rounded, prompt, 6) for prompt in prompts]
    ids, counts, _ = call(model, prompts, 6, decoder=Decoder(int8_copy(model), xla=True))
    rows = ids.numpy().tolist()
    assert [row[:n] for row, n in zip(rows, counts.numpy(), strict=True)] == expected
    assert len(expected[0]) > 1


def test_what_is_exported_scores_and_continues_by_the_rounded_weights(folder, rounded):
    served = Served(folder)
    ids = [11, 12, 13, 14] * 6 + [50256]
    example = tf.train.Example()
    example.features.feature["input_ids"].int64_list.value.extend(ids)
    example.features.feature["num_bytes"].int64_list.value.append(24)
    scored = served.call("evaluate", examples=[example.SerializeToString()])
    np.testing.assert_allclose(scored["sum_nll"], [windows_nll(rounded, ids, CONTEXT)], rtol=1e-4)
    prompt = [2, 3, 4, 5, 6]
    outputs = served.call("generate_ids", ids=[prompt], lengths=[5], max_new_tokens=[6])
    assert outputs["ids"].tolist() == [plain_greedy(rounded, prompt, 6)]


def test_the_file_is_about_a_quarter(folder, model, tmp_path):
    export_gpt2(model, tmp_path, stride=CONTEXT, xla=True)
    int8, floats = (
        sum(path.stat().st_size for path in (place / "variables").iterdir())
        for place in (folder, tmp_path)
    )
    assert int8 < 0.4 * floats  # a small model's scales weigh more


def test_it_can_be_scored_by_the_command_line(folder, rounded, tmp_path):
    (tmp_path / "text.txt").write_text("to be")
    (score,) = score_files(str(folder), [str(tmp_path / "text.txt")]).values()
    np.testing.assert_allclose(score.nll, windows_nll(rounded, [1462, 307, 50256], CONTEXT), 1e-4)


def test_it_comes_back_bit_for_bit_where_it_is_wanted_and_is_refused_elsewhere(folder, model):
    assert read_description(folder)["int8"] is True
    loaded = load_exported(folder, allow_int8=True)
    for before, after in zip(int8_copy(model).weights, loaded.weights, strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(np.array(after), np.array(before))
    refusal = f"^{folder} must have weights in floats, got 8 bits"
    with pytest.raises(ValueError, match=refusal):
        load_exported(folder)
    with pytest.raises(ValueError, match=refusal):
        find_start(str(folder), "", model.config)


def test_a_model_of_before_there_were_8_bits_is_in_floats(model, tmp_path):
    export_gpt2(model, tmp_path, stride=CONTEXT)
    path = tmp_path / "assets.extra" / "gpt2.json"
    fields: dict[str, Any] = json.loads(path.read_text())
    assert fields.pop("int8") is False
    path.write_text(json.dumps(fields))
    assert not load_exported(tmp_path).is_int8


def test_without_xla_it_is_refused_and_nothing_is_written(model, tmp_path):
    with pytest.raises(ValueError, match="xla must be true where int8 is true"):
        export_gpt2(model, tmp_path / "1", stride=CONTEXT, int8=True)
    assert not (tmp_path / "1").exists()


def test_a_model_on_several_devices_can_be_copied():
    devices = tf.config.list_logical_devices("CPU")
    with tf.distribute.MirroredStrategy([device.name for device in devices]).scope():
        model = random_gpt2(max_length=CONTEXT)
    ids = np.array([[3, 1, 4]])
    np.testing.assert_allclose(
        int8_copy(model).logits(ids),
        NumpyGPT2(rounded_by_numpy(model)).logits(ids[0])[None],
        rtol=1e-4,
        atol=1e-4,
    )
