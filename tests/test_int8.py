"""model/int8.py: the weights in 8 bits, what they compute, and where they are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.start import find_start, list_start_files
from model.config import GPT2Config
from model.decoder import Decoder
from model.export import export_gpt2, read_description
from model.exported import load_exported
from model.gpt2 import GPT2
from model.huggingface import write_huggingface
from model.int8 import int8_copy, round_to_int8
from model.one_row import matrix_times_column, row_times_matrix
from pipeline.score import score_files
from tests.numpy_gpt2 import NumpyGPT2, plain_greedy, windows_nll
from tests.saved_models import Served
from tests.small_models import random_gpt2

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


def test_a_model_that_computes_in_bfloat16_can_be_rounded_too():
    model = random_gpt2(scale=0.5, dtype="mixed_bfloat16")
    expected = NumpyGPT2(rounded_by_numpy(model)).logits([3, 1, 4])
    round_to_int8(model)
    found = model.logits(np.array([[3, 1, 4]]))[0].numpy()
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())


def test_matrices_are_in_8_bits_and_the_rest_and_the_original_are_not(model):
    before = [np.array(weight) for weight in model.weights]
    copy = int8_copy(model)
    rounded = [weight.path for weight in copy.weights if weight.dtype == "int8"]
    assert rounded[0].endswith("/token_embedding/embeddings")
    assert [path.rsplit("/", 1)[1] for path in rounded[1:]] == ["kernel"] * 4 * len(copy.blocks)
    assert copy.is_int8
    assert not model.is_int8
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(np.array(weight), value)


def test_a_step_of_one_row_reads_8_bits_in_all_its_products(model, rounded, monkeypatch):
    called = []

    def counting(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
        def call(*arguments: tf.Tensor) -> tf.Tensor:
            called.append(function.__name__)
            return function(*arguments)

        return call

    monkeypatch.setattr("model.linear.row_times_matrix", counting(row_times_matrix))
    monkeypatch.setattr("model.decoder.matrix_times_column", counting(matrix_times_column))
    decoder = Decoder(int8_copy(model), xla=True)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.int32)])
    def logits_behind_two(ids_B2: tf.Tensor) -> tf.Tensor:
        one_B = tf.ones_like(ids_B2[:, 0])
        _, cache = decoder.prefill(ids_B2[:, :1], one_B, 2)
        return decoder.step(ids_B2[:, 1], one_B, cache)[0]

    found = logits_behind_two(tf.constant([[3, 1]]))
    # The passes over prompts and over several rows were traced too, and call neither.
    assert called == ["row_times_matrix"] * 4 * len(model.blocks) + ["matrix_times_column"]
    np.testing.assert_allclose(found[0], rounded.logits([3, 1])[1], rtol=1e-4, atol=0.02)


def test_what_is_exported_scores_and_continues_by_the_rounded_weights(folder, rounded):
    served = Served(folder)
    ids = [11, 12, 13, 14] * 6 + [50256]
    example = tf.train.Example()
    example.features.feature["input_ids"].int64_list.value.extend(ids)
    example.features.feature["num_bytes"].int64_list.value.append(24)
    scored = served.call("evaluate", examples=[example.SerializeToString()])
    np.testing.assert_allclose(scored["sum_nll"], [windows_nll(rounded, ids, CONTEXT)], rtol=1e-4)
    for prompts in [[[2, 3, 4, 5, 6]], [[1] * 5, [2, 3, 4, 5, 6], [7, 8, 9, 10, 11]]]:
        outputs = served.call(
            "generate_ids", ids=prompts, lengths=[5] * len(prompts), max_new_tokens=[6]
        )
        expected = [plain_greedy(rounded, prompt, 6) for prompt in prompts]
        assert outputs["ids"].tolist() == expected


def test_its_files_are_scored(folder, rounded, tmp_path):
    (tmp_path / "text.txt").write_text("to be")
    (score,) = score_files(str(folder), [str(tmp_path / "text.txt")]).values()
    np.testing.assert_allclose(score.nll, windows_nll(rounded, [1462, 307, 50256], CONTEXT), 1e-4)


def test_it_comes_back_bit_for_bit_where_it_is_wanted_and_is_refused_elsewhere(
    folder, model, tmp_path
):
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
    in_floats = "the model must have weights in floats, got 8 bits"
    with pytest.raises(ValueError, match=in_floats):
        export_gpt2(loaded, tmp_path / "1", stride=CONTEXT, xla=True)
    with pytest.raises(ValueError, match=in_floats):
        write_huggingface(loaded, tmp_path / "1")
    assert not (tmp_path / "1").exists()


def test_it_is_refused_as_a_start_before_anything_runs(folder):
    for start in (str(folder), "production"):
        with pytest.raises(ValueError, match=f"^{folder} must have weights in floats, got 8 bits"):
            list_start_files(start, str(folder.parent), GPT2Config())


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


def test_what_a_strategy_mirrors_can_be_copied():
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        model = random_gpt2(max_length=CONTEXT)
    ids = np.array([[3, 1, 4]])
    np.testing.assert_allclose(
        int8_copy(model).logits(ids),
        NumpyGPT2(rounded_by_numpy(model)).logits(ids[0])[None],
        rtol=1e-4,
        atol=1e-4,
    )
