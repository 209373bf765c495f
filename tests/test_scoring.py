"""model/scoring.py against a plain loop over NumPy's GPT-2."""

import re
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model import scoring
from model.scoring import document_nll
from tests.numpy_gpt2 import NumpyGPT2, log_softmax, windows_nll
from tests.small_models import random_gpt2

CONTEXT = 8
END = 50256
MODEL_SIZES: dict[str, Any] = {
    "vocab_size": 50257,
    "max_length": CONTEXT,
    "embedding_dim": 6,
    "num_layers": 1,
    "num_heads": 2,
}
LENGTHS = [1, CONTEXT - 1, CONTEXT, CONTEXT + 1, 3 * CONTEXT + 2]


@pytest.fixture(scope="module")
def model():
    return random_gpt2(**MODEL_SIZES)


def document_of(length: int, seed: int = 0) -> list[int]:
    tokens = np.random.default_rng([seed, length]).integers(0, END, length - 1).tolist()
    return [*tokens, END]


@pytest.mark.parametrize("stride", [1, 3, CONTEXT // 2, CONTEXT])
def test_documents_of_any_length_get_a_plain_loops_sum(model, stride):
    documents = [document_of(length) for length in LENGTHS]
    expected = [windows_nll(NumpyGPT2(model), document, stride) for document in documents]
    nll = document_nll(model, tf.ragged.constant(documents, tf.int64), stride)
    assert nll.dtype == tf.float64
    np.testing.assert_allclose(nll, expected, rtol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_in_16_bits_gets_the_sum_but_for_rounding(policy):
    model = random_gpt2(**MODEL_SIZES, dtype=policy)
    nll = document_nll(model, tf.ragged.constant([document_of(2 * CONTEXT)], tf.int64), 3)
    expected = windows_nll(NumpyGPT2(model), document_of(2 * CONTEXT), 3)
    assert float(nll[0]) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("length", LENGTHS)
def test_what_else_is_in_the_batch_does_not_matter(model, length):
    documents = [document_of(length) for length in [*LENGTHS, 2 * CONTEXT]]
    together = document_nll(model, tf.ragged.constant(documents, tf.int64), 3)
    alone = document_nll(model, tf.ragged.constant([document_of(length)], tf.int64), 3)
    assert float(together[LENGTHS.index(length)]) == pytest.approx(float(alone[0]), rel=1e-6)


@pytest.mark.parametrize("positions", [1, 3 * CONTEXT, 10**6])
def test_how_many_windows_go_through_at_a_time_does_not_matter(model, monkeypatch, positions):
    monkeypatch.setattr(scoring, "_POSITIONS_AT_A_TIME", positions)
    documents = [document_of(length) for length in LENGTHS]
    expected = [windows_nll(NumpyGPT2(model), document, 3) for document in documents]
    nll = document_nll(model, tf.ragged.constant(documents, tf.int64), 3)
    np.testing.assert_allclose(nll, expected, rtol=1e-5)


def test_the_first_token_is_predicted_from_the_end_of_text(model):
    logits = NumpyGPT2(model).logits([END])[0]
    nll = document_nll(model, tf.ragged.constant([[17]], tf.int64), CONTEXT)
    assert float(nll[0]) == pytest.approx(-log_softmax(logits)[17], rel=1e-5)


def test_a_long_documents_sum_is_kept_in_float64():
    # Weights of zero make every token equally likely: the sum is known to the last digit that
    # float32 logits allow, and float32 could not add up so many of them so well.
    model = random_gpt2(**MODEL_SIZES)
    for variable in model.trainable_variables:
        variable.assign(np.zeros(variable.shape))
    length = 3_000
    nll = document_nll(model, tf.ragged.constant([document_of(length)], tf.int64), CONTEXT)
    one = np.log(np.float32(50257))
    assert float(nll[0]) == pytest.approx(length * float(one), rel=2e-7)


def test_an_empty_document_has_nothing_to_predict(model):
    documents = tf.ragged.constant([[], document_of(5), []], tf.int64)
    nll = document_nll(model, documents, 3)
    expected = windows_nll(NumpyGPT2(model), document_of(5), 3)
    np.testing.assert_allclose(nll, [0.0, expected, 0.0], rtol=1e-5)


def test_a_batch_without_documents_has_no_results(model):
    documents = tf.RaggedTensor.from_row_lengths(tf.zeros([0], tf.int64), tf.zeros([0], tf.int64))
    assert document_nll(model, documents, 3).shape == (0,)


@pytest.mark.parametrize("stride", [0, -1, CONTEXT + 1])
def test_a_stride_that_would_leave_tokens_out_is_an_error(model, stride):
    message = f"stride must be in [1, max_length=8], got {stride}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        document_nll(model, tf.ragged.constant([[1]], tf.int64), stride)
