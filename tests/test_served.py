"""model/served.py: what the signatures answer, against plain loops and tiktoken."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model.export import export_gpt2
from model.gpt2 import GPT2
from model.scoring import document_nll
from model.tokenizer import gpt2_encoding
from tests.numpy_gpt2 import NumpyGPT2
from tests.saved_models import Served
from tests.small_models import random_gpt2, reciting_gpt2

END = 50256
CONTEXT = 12
PROMPTS = ["To be", "", " or not to be, that is"]


@pytest.fixture(scope="module")
def model():
    return random_gpt2(
        scale=1.0, vocab_size=50257, max_length=CONTEXT, embedding_dim=6, num_heads=2, dropout=0.5
    )


@pytest.fixture(scope="module")
def served(model, tmp_path_factory) -> Served:
    path = tmp_path_factory.mktemp("served") / "1"
    export_gpt2(model, path, stride=5)
    return Served(path)


@pytest.fixture(scope="module")
def reciter(tmp_path_factory) -> Served:
    """After a prompt of one token it says " two three four", then ends."""
    words = gpt2_encoding().encode_ordinary(" two three four")
    path = tmp_path_factory.mktemp("reciter") / "1"
    model = reciting_gpt2([*words, END, 5, 5], vocab_size=50257, sharpness=10.0)
    export_gpt2(model, path, stride=4)
    return Served(path)


def tokens_of(text: str) -> list[int]:
    return gpt2_encoding().encode_ordinary(text)


def greedy(model: Any, ids: list[int], max_new_tokens: int) -> list[int]:
    whole = list(ids)
    while len(whole) < len(ids) + max_new_tokens:
        token = int(NumpyGPT2(model).logits(whole)[-1].argmax())
        if token == END:
            break
        whole.append(token)
    return whole[len(ids) :]


def test_texts_are_continued_by_a_plain_loops_tokens(model, served):
    outputs = served.call("serving_default", prompts=PROMPTS, max_new_tokens=[5, 4, 0])
    for row, (prompt, count) in enumerate(zip(PROMPTS, (5, 4, 0), strict=True)):
        ids = tokens_of(prompt) or [END]
        expected = greedy(model, ids, count)
        assert outputs["completions"][row] == gpt2_encoding().decode_bytes(expected)
        assert outputs["prompt_tokens"][row] == len(ids)
        assert outputs["completion_tokens"][row] == len(expected) == count
        assert outputs["finish_reason"][row] == b"length"


@pytest.mark.parametrize("xla", [False, True])
def test_a_model_in_16_bits_is_served_too(tmp_path, xla):
    words = tokens_of(" two three four")
    model = reciting_gpt2([*words, END], vocab_size=50257, sharpness=10.0)
    in_16_bits = GPT2(**model.config.to_dict(), dtype="mixed_float16")
    in_16_bits.build((None, model.config.max_length))
    in_16_bits.set_weights(model.get_weights())
    export_gpt2(in_16_bits, tmp_path / "1", stride=4, xla=xla)
    served = Served(tmp_path / "1")
    outputs = served.call("serving_default", prompts=["one"], max_new_tokens=[3])
    assert outputs["completions"][0] == b" two three four"
    expected, found = (
        float(each)
        for each in (
            document_nll(model, tf.ragged.constant([[*words, END]], tf.int64), 4)[0],
            served.call("score", texts=[" two three four"])["nll"][0],
        )
    )
    assert found == pytest.approx(expected, rel=0.01)


def test_an_option_may_be_given_once_for_all_rows_or_left_out(served):
    each = served.call(
        "serving_default",
        prompts=PROMPTS,
        max_new_tokens=[4] * 3,
        temperature=[1.5] * 3,
        top_k=[0] * 3,
        top_p=[1.0] * 3,
        repetition_penalty=[1.0] * 3,
        seed=[7] * 3,
        stop=[[""]] * 3,
        truncate=[False] * 3,
    )
    once = served.call(
        "serving_default", prompts=PROMPTS, max_new_tokens=[4], temperature=[1.5], seed=[7]
    )
    assert once["completions"].tolist() == each["completions"].tolist()
    with pytest.raises(tf.errors.InvalidArgumentError, match="seed must have a value for each of"):
        served.call("serving_default", prompts=PROMPTS, max_new_tokens=[4], seed=[7, 8])


@pytest.mark.parametrize("options", [{}, {"temperature": [1.5], "top_p": [0.9]}])
def test_each_prompt_gets_what_it_gets_alone(served, options):
    seeds = [3, 4, 5]
    together = served.call(
        "serving_default", prompts=PROMPTS, max_new_tokens=[5], seed=seeds, **options
    )
    for row, (prompt, seed) in enumerate(zip(PROMPTS, seeds, strict=True)):
        alone = served.call(
            "serving_default", prompts=[prompt], max_new_tokens=[5], seed=[seed], **options
        )
        assert {name: values[0] for name, values in alone.items()} == {
            name: values[row] for name, values in together.items()
        }


@pytest.mark.parametrize(
    ("options", "text", "tokens", "reason"),
    [
        ({}, " two three four", 3, "stop"),
        ({"max_new_tokens": [2]}, " two three", 2, "length"),
        ({"max_new_tokens": [3]}, " two three four", 3, "length"),
        ({"stop": [["three"]]}, " two ", 2, "stop"),
        ({"stop": [["o th"]]}, " tw", 2, "stop"),
        ({"stop": [["five", "four", "three"]]}, " two ", 2, "stop"),
        ({"stop": [["four"]], "max_new_tokens": [3]}, " two three ", 3, "stop"),
        ({"stop": [[" two"]]}, "", 1, "stop"),
    ],
)
def test_a_text_ends_where_it_should_and_says_why(reciter, options, text, tokens, reason):
    options = {"max_new_tokens": [5], **options}
    outputs = reciter.call("serving_default", prompts=["!"], **options)
    assert outputs["completions"][0].decode() == text
    assert outputs["completion_tokens"][0] == tokens
    assert outputs["finish_reason"][0].decode() == reason


def test_each_row_has_stop_strings_of_its_own(reciter):
    outputs = reciter.call(
        "serving_default",
        prompts=["!"] * 3,
        max_new_tokens=[5],
        stop=[["four", ""], ["x", "three"], ["", ""]],
    )
    assert [text.decode() for text in outputs["completions"]] == [
        " two three ",
        " two ",
        " two three four",
    ]


def test_ids_are_continued_as_their_text_is(model, served):
    outputs = served.call(
        "generate_ids", ids=[[1, 2, 3], [4, 5, 99999]], lengths=[3, 2], max_new_tokens=[4, 2]
    )
    first, second = greedy(model, [1, 2, 3], 4), greedy(model, [4, 5], 2)
    assert outputs["ids"].tolist() == [first, second + [0] * (len(first) - len(second))]
    assert outputs["lengths"].tolist() == [len(first), len(second)]
    assert outputs["finish_reason"].tolist() == [b"length"] * 2


@pytest.mark.parametrize(("tokens", "new_tokens"), [(13, 2), (13, 0), (3, 10), (3, 2**31 - 1)])
def test_what_exceeds_the_context_is_an_error_with_the_numbers(served, tokens, new_tokens):
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=f"a prompt of {tokens} tokens and {new_tokens} new tokens exceed the context of 12",
    ):
        served.call(
            "generate_ids", ids=[[1] * tokens], lengths=[tokens], max_new_tokens=[new_tokens]
        )


def test_a_text_that_may_be_truncated_is_continued_from_its_last_tokens(model, served):
    text = "one two three four five six seven eight nine ten eleven"
    outputs = served.call("serving_default", prompts=[text], max_new_tokens=[6], truncate=[True])
    expected = greedy(model, tokens_of(text)[-6:], 6)
    assert outputs["completions"][0] == gpt2_encoding().decode_bytes(expected)
    assert outputs["prompt_tokens"][0] == 11


def test_a_batch_without_rows_is_answered_without_rows(served):
    nothing = np.array([], object)
    outputs = served.call("serving_default", prompts=nothing)
    assert {name: len(values) for name, values in outputs.items()} == dict.fromkeys(outputs, 0)
    assert served.call("encode", texts=nothing)["lengths"].tolist() == []


@pytest.mark.parametrize("signature", ["generate_ids", "decode"])
def test_lengths_that_are_not_one_for_each_row_are_an_error(served, signature):
    with pytest.raises(tf.errors.InvalidArgumentError, match="each of the 1 rows of ids, got 2"):
        served.call(signature, ids=[[5]], lengths=[1, 1])


def test_encode_and_decode_are_tiktokens(served):
    texts = ["To be, or not", "", "naïve <|endoftext|>"]
    outputs = served.call("encode", texts=texts)
    rows = [row[:n].tolist() for row, n in zip(outputs["ids"], outputs["lengths"], strict=True)]
    assert rows == [tokens_of(text) for text in texts]
    decoded = served.call("decode", **outputs)
    assert [text.decode() for text in decoded["texts"]] == texts


def test_score_is_that_of_a_document(model, served):
    texts = ["To be, or not to be, that is the question", "naïve", ""]
    outputs = served.call("score", texts=texts)
    for row, text in enumerate(texts):
        document = [*tokens_of(text), END]
        shown, total = [END, *document[:-1]], 0.0
        # Windows 5 tokens apart: the first predicts all that it covers, others their last 5.
        for begin in range(0, max(1, len(document) - CONTEXT + 5), 5):
            window = slice(begin, begin + CONTEXT)
            nll = NumpyGPT2(model).nll(shown[window], document[window])
            total += nll[0 if begin == 0 else CONTEXT - 5 :].sum()
        assert outputs["nll"][row] == pytest.approx(total, rel=1e-5)
        assert outputs["tokens"][row] == len(document)
        assert outputs["bytes"][row] == len(text.encode())
        assert outputs["perplexity"][row] == pytest.approx(np.exp(total / len(document)), rel=1e-4)
