"""model/unigram.py against plain Python."""

import math

import numpy as np
import pytest
import tensorflow as tf

from model.unigram import count_tokens, export_unigram, unigram_nll

# Five tokens, one of them never seen; with one added to each, 3, 1, 4, 2 and 2 of 12.
COUNTS = [2, 0, 3, 1, 1]
PROBABILITIES = [3 / 12, 1 / 12, 4 / 12, 2 / 12, 2 / 12]


def test_tokens_are_counted_over_all_documents():
    documents = [np.array([0, 2, 2]), np.array([4]), np.array([2, 0, 3], np.int32)]
    assert count_tokens(documents, vocab_size=5).tolist() == COUNTS


def test_no_documents_have_no_tokens():
    assert count_tokens([], vocab_size=3).tolist() == [0, 0, 0]


def test_a_token_outside_the_vocabulary_is_an_error():
    with pytest.raises(ValueError, match=r"shape"):
        count_tokens([np.array([5])], vocab_size=5)


def test_a_tokens_nll_is_that_of_its_share_with_one_added_to_each_count():
    expected = [-math.log(probability) for probability in PROBABILITIES]
    np.testing.assert_allclose(unigram_nll(np.array(COUNTS)), expected, rtol=1e-12)


def test_without_any_counts_all_tokens_are_equally_likely():
    np.testing.assert_allclose(unigram_nll(np.zeros(8, np.int64)), [math.log(8)] * 8, rtol=1e-12)


def test_the_exported_model_gives_each_documents_sums(tmp_path):
    export_unigram(np.array(COUNTS), tmp_path / "1")
    documents = [[2], [0, 1, 1, 4], [3] * 30]
    examples = []
    for index, document in enumerate(documents):
        example = tf.train.Example()
        example.features.feature["input_ids"].int64_list.value.extend(document)
        example.features.feature["num_bytes"].int64_list.value.append(100 + index)
        examples.append(example.SerializeToString())

    loaded = tf.saved_model.load(str(tmp_path / "1"))
    assert set(loaded.signatures) == {"evaluate"}
    outputs = loaded.signatures["evaluate"](examples=tf.constant(examples))

    expected = [-math.fsum(math.log(PROBABILITIES[t]) for t in d) for d in documents]
    assert outputs["sum_nll"].dtype == tf.float64
    np.testing.assert_allclose(outputs["sum_nll"], expected, rtol=1e-12)
    assert outputs["num_tokens"].numpy().tolist() == [1, 4, 30]
    assert outputs["num_bytes"].numpy().tolist() == [100, 101, 102]
