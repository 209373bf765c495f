"""model/generation.py against plain loops, and its sampling against known distributions."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model.generation import generate, sample
from tests.numpy_gpt2 import NumpyGPT2
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


def run(
    model: Any,
    prompts: list[list[int]],
    max_new_tokens: int | list[int] = 4,
    *,
    temperature: float | list[float] = 0.0,
    top_k: int | list[int] = 0,
    top_p: float | list[float] = 1.0,
    seed: int | list[int] = 0,
    filling: int = 0,
) -> list[list[int]]:
    """The continuations, without what fills up their rows."""
    width = max(map(len, prompts))
    ids, counts = generate(
        model,
        tf.constant([prompt + [filling] * (width - len(prompt)) for prompt in prompts]),
        tf.constant([len(prompt) for prompt in prompts]),
        *(
            tf.constant(np.broadcast_to(np.array(value, dtype), len(prompts)))
            for value, dtype in (
                (max_new_tokens, np.int32),
                (temperature, np.float32),
                (top_k, np.int32),
                (top_p, np.float32),
                (seed, np.int32),
            )
        ),
    )
    assert ids.dtype == counts.dtype == tf.int32
    rows = []
    for row, count in zip(ids.numpy().tolist(), counts.numpy().tolist(), strict=True):
        assert not any(row[count:])
        rows.append(row[:count])
    assert ids.shape[1] == max(map(len, rows))
    return rows


# --- greedy ---


def plain_greedy(model: NumpyGPT2, prompt: list[int], max_new_tokens: int) -> list[int]:
    ids = list(prompt)
    for _ in range(max_new_tokens):
        token = int(model.logits(ids)[-1].argmax())
        if token == END:
            break
        ids.append(token)
    return ids[len(prompt) :]


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


# --- sampling ---

PROBABILITIES = np.array([0.1, 0.4, 0.0, 0.2, 0.3])  # of tokens 0 to 4
DRAWS = 4000


@tf.function(autograph=False)
def sample_many(
    logits_V: tf.Tensor, temperature: tf.Tensor, top_k: tf.Tensor, top_p: tf.Tensor, step: tf.Tensor
) -> tf.Tensor:
    """One token for each of DRAWS seeds."""
    return sample(
        tf.tile(logits_V[None, :], [DRAWS, 1]),
        tf.fill([DRAWS], temperature),
        tf.fill([DRAWS], top_k),
        tf.fill([DRAWS], top_p),
        tf.range(DRAWS),
        step,
    )


def draw(temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, step: int = 0) -> np.ndarray:
    logits = np.log(np.maximum(PROBABILITIES, 1e-30)) + 3  # what is added does not matter
    return sample_many(
        tf.constant(logits, tf.float32),
        tf.constant(temperature),
        tf.constant(top_k),
        tf.constant(top_p),
        tf.constant(step),
    ).numpy()


def shares(tokens: np.ndarray) -> np.ndarray:
    return np.bincount(tokens, minlength=5) / len(tokens)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.1, 0.4, 0, 0.2, 0.3]),
        ({"step": 5}, [0.1, 0.4, 0, 0.2, 0.3]),
        # Squares, and roots, over their sum.
        ({"temperature": 0.5}, [0.01 / 0.3, 0.16 / 0.3, 0, 0.04 / 0.3, 0.09 / 0.3]),
        ({"temperature": 2.0}, [0.1645, 0.3290, 0, 0.2326, 0.2849]),
        ({"top_k": 2}, [0, 4 / 7, 0, 0, 3 / 7]),
        ({"top_k": 3}, [0, 4 / 9, 0, 2 / 9, 3 / 9]),
        ({"top_k": 100}, [0.1, 0.4, 0, 0.2, 0.3]),
        # The likeliest tokens that together reach the probability.
        ({"top_p": 0.39}, [0, 1, 0, 0, 0]),
        ({"top_p": 0.41}, [0, 4 / 7, 0, 0, 3 / 7]),
        ({"top_p": 0.69}, [0, 4 / 7, 0, 0, 3 / 7]),
        ({"top_p": 0.71}, [0, 4 / 9, 0, 2 / 9, 3 / 9]),
        # Top-p counts what top-k has left: 4/7 of it is the first token.
        ({"top_k": 2, "top_p": 0.5}, [0, 1, 0, 0, 0]),
        ({"top_k": 2, "top_p": 0.6}, [0, 4 / 7, 0, 0, 3 / 7]),
        # Top-p is of the probabilities after the temperature: 0.533 is the first of the squares.
        ({"temperature": 0.5, "top_p": 0.5}, [0, 1, 0, 0, 0]),
        ({"top_k": 1}, [0, 1, 0, 0, 0]),
        ({"temperature": 0.0}, [0, 1, 0, 0, 0]),
        ({"temperature": 1e-3}, [0, 1, 0, 0, 0]),
    ],
)
def test_tokens_are_drawn_with_their_probabilities(settings, expected):
    drawn = shares(draw(**settings))
    assert ((drawn > 0) == (np.array(expected) > 0)).all()
    # Three standard deviations of 4,000 draws are 0.024 at most.
    np.testing.assert_allclose(drawn, expected, atol=0.025)


def test_one_step_says_nothing_of_the_next():
    first, second = draw(step=0), draw(step=1)
    # Two independent draws agree with the sum of the squares.
    assert (first == second).mean() == pytest.approx(0.3, abs=0.025)
    # One seed's next step is not the next seed's step.
    assert (first[1:] == second[:-1]).mean() == pytest.approx(0.3, abs=0.025)


def test_of_equally_likely_tokens_greedy_and_the_one_best_take_the_first():
    logits = tf.constant([[1.0, 2.0, 0.0, 2.0]] * 2)
    temperature, top_k = tf.constant([0.0, 1.0]), tf.constant([0, 1])
    ones, seeds = tf.ones([2]), tf.constant([1, 1])
    assert sample(logits, temperature, top_k, ones, seeds, tf.constant(0)).numpy().tolist() == [
        1,
        1,
    ]


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
        ([[1], [1]], {"temperature": [1, -0.5]}, r"temperature must be >= 0, got \[1 -0.5\]"),
        ([[1]], {"temperature": np.nan}, r"temperature must be >= 0, got \[nan\]"),
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
            model,
            tf.constant([[1, 2]]),
            tf.constant([3]),
            tf.constant([1]),
            tf.constant([0.0]),
            tf.constant([0]),
            tf.constant([1.0]),
            tf.constant([0]),
        )
