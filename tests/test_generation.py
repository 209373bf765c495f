"""model/generation.py against plain loops."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model.decoder import Decoder
from model.generation import HasStopped, generate
from model.sampling import Sampling
from tests.numpy_gpt2 import NumpyGPT2, plain_greedy
from tests.small_models import random_gpt2, reciting_gpt2

END = 50256
CONTEXT = 12
# After one token it says 5, after two 6, after three 7; after four comes the end of the text.
RECITED = [5, 6, 7, END, 8, 9, END, 5]


@pytest.fixture(scope="module")
def model():
    return random_gpt2(
        scale=1.0, vocab_size=50257, max_length=CONTEXT, embedding_dim=6, num_heads=2
    )


@pytest.fixture(scope="module")
def reciter():
    return reciting_gpt2(RECITED, vocab_size=50257, sharpness=10.0)


def call(
    model: Any,
    prompts: list[list[int]],
    max_new_tokens: int | list[int] = 4,
    *,
    temperature: float | list[float] = 0.0,
    top_k: int | list[int] = 0,
    top_p: float | list[float] = 1.0,
    repetition_penalty: float | list[float] = 1.0,
    seed: int | list[int] = 0,
    filling: int = 0,
    decoder: Decoder | None = None,
    truncate: bool = False,
    has_stopped: HasStopped | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """What `generate` returns."""
    width = max(map(len, prompts))

    def for_each_row(value: Any, dtype: type) -> tf.Tensor:
        return tf.constant(np.broadcast_to(np.array(value, dtype), len(prompts)))

    return generate(
        decoder or Decoder(model),
        tf.constant([prompt + [filling] * (width - len(prompt)) for prompt in prompts]),
        tf.constant([len(prompt) for prompt in prompts]),
        for_each_row(max_new_tokens, np.int32),
        Sampling(
            for_each_row(temperature, np.float32),
            for_each_row(top_k, np.int32),
            for_each_row(top_p, np.float32),
            for_each_row(repetition_penalty, np.float32),
            for_each_row(seed, np.int32),
        ),
        truncate,
        has_stopped,
    )


def run(*args: Any, **settings: Any) -> list[list[int]]:
    """The continuations, without what fills up their rows."""
    ids, counts, _ = call(*args, **settings)
    assert ids.dtype == counts.dtype == tf.int32
    rows = []
    for row, count in zip(ids.numpy().tolist(), counts.numpy().tolist(), strict=True):
        assert not any(row[count:])
        rows.append(row[:count])
    assert ids.shape[1] == max(map(len, rows))
    return rows


# --- greedy ---


PROMPTS = [[1], [2, 3, 4, 5, 6], [END, 7], [8, 9, 10]]


def test_greedy_continuations_are_a_plain_loops(model):
    expected = [plain_greedy(NumpyGPT2(model), prompt, 7) for prompt in PROMPTS]
    assert len({tuple(tokens) for tokens in expected}) == 4
    assert run(model, PROMPTS, 7) == expected


def test_a_text_that_is_known_by_heart_is_said_up_to_its_end_without_the_end(reciter):
    prompts = [[1], [1, 1], [1, 1, 1], [1] * 4, [1] * 5]
    assert run(reciter, prompts, 3) == [[5, 6, 7], [6, 7], [7], [], [8, 9]]


def test_each_row_has_its_own_number_of_new_tokens(reciter):
    assert run(reciter, [[1], [1], [1, 1], [1] * 5], [2, 0, 5, 1]) == [[5, 6], [], [6, 7], [8]]


def test_no_new_tokens_are_an_empty_continuation(reciter):
    assert run(reciter, [[1], [1, 1]], 0) == [[], []]


def test_prompt_and_new_tokens_may_fill_the_context(model):
    (tokens,) = run(model, [[1, 2]], CONTEXT - 2)
    assert tokens == plain_greedy(NumpyGPT2(model), [1, 2], CONTEXT - 2)
    assert len(tokens) == CONTEXT - 2
    assert run(model, [[1] * CONTEXT], 0) == [[]]


@pytest.mark.parametrize("filling", [1, END, 10**6, -1])
def test_what_fills_up_a_shorter_prompt_is_ignored(model, filling):
    expected = [plain_greedy(NumpyGPT2(model), prompt, 4) for prompt in PROMPTS]
    assert run(model, PROMPTS, 4, filling=filling) == expected


# --- rows of a batch ---


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 1.0},
        {"temperature": 0.7, "top_k": 40},
        {"temperature": 2.0, "top_p": 0.9},
    ],
)
def test_a_prompt_gets_the_same_text_alone_as_in_a_batch(model, settings):
    seeds = [3, 4, 5, 6]
    together = run(model, PROMPTS, 6, seed=seeds, **settings)
    alone = [
        run(model, [prompt], 6, seed=seed, **settings)[0]
        for prompt, seed in zip(PROMPTS, seeds, strict=True)
    ]
    assert together == alone


def test_the_seed_decides_the_text(model):
    first, again, other = run(model, [[1, 2]] * 3, 8, temperature=1.0, seed=[7, 7, 8])
    assert first == again
    assert first != other
    assert run(model, [[1, 2]], 8, temperature=1.0, seed=7) == [first]


def test_rows_of_different_settings_go_together(model):
    greedy = plain_greedy(NumpyGPT2(model), [1, 2], 6)
    settings: dict[str, Any] = {
        "temperature": [0.0, 1.0, 1.0, 1.0],
        "top_k": [0, 1, 0, 0],
        "top_p": [1.0, 1.0, 1e-6, 1.0],
    }
    rows = run(model, [[1, 2]] * 4, 6, seed=11, **settings)
    assert rows[:3] == [greedy] * 3
    assert rows[3] != greedy


# --- what cannot be done ---


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        (
            [[1], [1] * 10],
            {"max_new_tokens": 3},
            "a prompt of 10 tokens and 3 new tokens exceed the context of 12 tokens",
        ),
        (
            [[1] * 13],
            {"max_new_tokens": 0},
            "a prompt of 13 tokens and 0 new tokens exceed the context of 12 tokens",
        ),
        (
            [[1], [1, 2]],
            {"max_new_tokens": [1, 2**31 - 1]},
            "a prompt of 2 tokens and 2147483647 new tokens exceed the context of 12 tokens",
        ),
        (
            [[1], [1] * 20],
            {"max_new_tokens": [1, 2**31 - 1]},
            "a prompt of 20 tokens and 2147483647 new tokens exceed the context of 12 tokens",
        ),
        ([[1], []], {}, r"lengths must be from 1 to the 1 columns of ids, got \[1 0\]"),
        ([[1], [1]], {"max_new_tokens": [1, -1]}, r"max_new_tokens must be >= 0, got \[1 -1\]"),
        (
            [[1], [1]],
            {"temperature": [1, -0.5]},
            r"temperature must be >= 0 and finite, got \[1 -0.5\]",
        ),
        ([[1]], {"temperature": np.nan}, r"temperature must be >= 0 and finite, got \[nan\]"),
        ([[1], [1]], {"top_k": [5, -1]}, r"top_k must be >= 0, got \[5 -1\]"),
        ([[1], [1]], {"top_p": [0.5, 0.0]}, r"top_p must be in \(0, 1\], got \[0.5 0\]"),
        ([[1], [1]], {"top_p": [0.5, 1.5]}, r"top_p must be in \(0, 1\], got \[0.5 1.5\]"),
        ([[1]], {"top_p": np.nan}, r"top_p must be in \(0, 1\], got \[nan\]"),
    ],
)
def test_what_cannot_be_done_is_an_error_that_says_why(model, prompts, settings, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        run(model, prompts, **settings)


def test_a_prompt_said_to_be_longer_than_its_row_is_an_error(model):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"the 2 columns of ids, got \[3\]"):
        generate(
            Decoder(model),
            tf.constant([[1, 2]]),
            tf.constant([3]),
            tf.constant([1]),
            Sampling(
                temperature=tf.constant([0.0]),
                top_k=tf.constant([0]),
                top_p=tf.constant([1.0]),
                repetition_penalty=tf.constant([1.0]),
                seed=tf.constant([0]),
            ),
        )


def test_an_id_that_is_no_token_is_an_error_that_names_it(model):
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"ids must be from 0 to 50256, got \[-1 50257\]"
    ):
        run(model, [[1, -1], [50257]])


# --- prompts that are too long ---


def test_a_prompt_that_may_be_truncated_loses_its_first_tokens(model):
    prompt = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    assert run(model, [prompt, [1, 2]], [4, 10], truncate=True) == [
        plain_greedy(NumpyGPT2(model), prompt[3:], 4),
        plain_greedy(NumpyGPT2(model), [1, 2], 10),
    ]


def test_truncation_leaves_a_token_of_the_prompt(model):
    assert run(model, [[5, 6, 1]], 11, truncate=True) == [plain_greedy(NumpyGPT2(model), [1], 11)]
    with pytest.raises(tf.errors.InvalidArgumentError, match="of 1 tokens and 12 new tokens"):
        run(model, [[5, 6, 1]], 12, truncate=True)


# --- pieces ---


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_text_asked_for_in_pieces_is_the_text_asked_for_at_once(model, temperature):
    settings: dict[str, Any] = {"temperature": temperature, "seed": 5, "repetition_penalty": 1.3}
    (whole,) = run(model, [[1, 2]], 9, **settings)
    ids = [1, 2]
    for size in (1, 3, 5):
        ids += run(model, [ids], size, **settings)[0]
    assert ids == [1, 2, *whole]


# --- ends ---


def test_a_row_that_is_told_to_stop_stops_while_others_go_on(model):
    def after_two(new_ids_BN: tf.Tensor, count_B: tf.Tensor) -> tf.Tensor:
        seen.append(new_ids_BN.shape)
        return (count_B == 2) & (tf.range(3) == 1)

    seen: list[tf.TensorShape] = []
    prompts = PROMPTS[:3]
    rows = run(model, prompts, [5, 5, 3], has_stopped=after_two)
    whole = run(model, prompts, [5, 5, 3])
    assert rows == [whole[0], whole[1][:2], whole[2]]
    assert seen


def test_which_rows_ended_of_themselves_is_told(reciter):
    _, counts, stopped = call(reciter, [[1], [1], [1, 1]], [3, 4, 0])
    assert counts.numpy().tolist() == [3, 3, 0]
    assert stopped.numpy().tolist() == [False, True, False]


def test_generation_ends_when_every_row_is_done(reciter):
    steps = []

    class CountingDecoder(Decoder):
        def step(self, token_B, position_B, cache):
            steps.append(position_B.numpy().tolist())
            return super().step(token_B, position_B, cache)

    call(reciter, [[1], [1, 1]], [7, 6], decoder=CountingDecoder(reciter))
    # The second row's end comes with the third of its tokens, the first one's with its fourth.
    assert steps == [[1, 2], [2, 3], [3, 3]]


# --- XLA ---


@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[1:2]])
def test_compiled_passes_give_the_same_text(model, prompts):
    expected = [plain_greedy(NumpyGPT2(model), prompt, 5) for prompt in prompts]
    _, counts, _ = outputs = call(model, prompts, 5, decoder=Decoder(model, xla=True))
    rows = outputs[0].numpy().tolist()
    assert [row[:n] for row, n in zip(rows, counts.numpy(), strict=True)] == expected
