"""model/train_step.py: an update against NumPy's finite differences; dropout."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model import GPT2, GPT2Config
from model.packing import PackedTokens
from tests.numpy_gpt2 import NumpyGPT2
from tests.small_models import SMALL, randomize
from tests.small_steps import TINY, batch_of, first_moments, numpy_loss, step_of


def numpy_gradients(model: NumpyGPT2, ids: np.ndarray, weights: np.ndarray) -> dict:
    """The gradient of every parameter by central differences."""
    gradients = {}
    for name, array in model.parameters().items():
        gradient = gradients[name] = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            value = array[index]
            losses = []
            for moved in (value + 1e-5, value - 1e-5):
                array[index] = moved
                losses.append(numpy_loss(model, ids, weights))
            array[index] = value
            gradient[index] = (losses[0] - losses[1]) / 2e-5
    return gradients


@pytest.mark.parametrize("xla", [False, True])
def test_loss_and_gradients_are_numpys_finite_differences(xla):
    step = step_of(xla=xla, beta_1=0.75)
    randomize(step.model, seed=0, scale=0.5)
    ids, weights = batch_of(TINY, rows=3)
    weights[2, 1:] = 0  # a row that is filled up
    numpy_model = NumpyGPT2(step.model)
    expected = numpy_gradients(numpy_model, ids, weights)

    result = step.update(ids, weights)

    norm = np.sqrt(sum((g**2).sum() for g in expected.values()))
    assert result.loss == pytest.approx(numpy_loss(numpy_model, ids, weights), rel=1e-5)
    assert result.gradient_norm == pytest.approx(norm, rel=1e-4)
    moments = first_moments(step)
    assert moments.keys() == expected.keys()
    for name, gradient in expected.items():
        # After one update the mean is a quarter of the gradient: 1 - beta_1.
        np.testing.assert_allclose(4 * moments[name], gradient, rtol=1e-3, atol=2e-5, err_msg=name)


def test_gradients_above_the_norm_are_scaled_down_to_it():
    ids, weights = batch_of(TINY, rows=3)
    free, clipped = step_of(), step_of(gradient_clip_norm=0.01)
    for step in (free, clipped):
        randomize(step.model, seed=0, scale=0.5)
    free_norm = free.update(ids, weights).gradient_norm
    clipped_norm = clipped.update(ids, weights).gradient_norm
    assert free_norm == clipped_norm > 0.1
    free_moments, clipped_moments = first_moments(free), first_moments(clipped)
    for name, moment in free_moments.items():
        expected = moment * 0.01 / free_norm
        np.testing.assert_allclose(clipped_moments[name], expected, rtol=1e-4, atol=1e-10)
    squares = sum((moment**2).sum() for moment in clipped_moments.values())
    assert np.sqrt(squares) / 0.1 == pytest.approx(0.01, rel=1e-4)


def test_gradients_are_never_above_an_infinite_norm():
    ids, weights = batch_of(TINY, rows=3)
    free, unclipped = step_of(), step_of(gradient_clip_norm=np.inf)
    for step in (free, unclipped):
        randomize(step.model, seed=0, scale=0.5)
    assert unclipped.update(ids, weights) == free.update(ids, weights)
    free_moments, unclipped_moments = first_moments(free), first_moments(unclipped)
    for name, moment in free_moments.items():
        np.testing.assert_array_equal(unclipped_moments[name], moment)


def test_each_update_takes_the_rate_of_its_step():
    step = step_of(steps=12, warmup_steps=2, learning_rate=0.5, final_learning_rate_share=0.2)
    rates = [step.learning_rate(number) for number in (1, 2, 7, 12)]
    np.testing.assert_allclose(rates, [0.25, 0.5, 0.3, 0.1], rtol=1e-6)
    # Adam's first update moves each weight by the rate, whatever the gradient's size.
    before = [np.array(weight) for weight in step.model.trainable_variables]
    step.update(*batch_of(TINY, rows=2))
    assert step.steps_done == 1
    for old, new in zip(before, step.model.trainable_variables, strict=True):
        assert np.abs(np.array(new) - old).max() == pytest.approx(0.25, rel=1e-2)


@pytest.mark.parametrize(("batches", "rows"), [(1, 4), (2, 8), (3, 10), (100, 10)])
def test_the_mean_nll_is_numpys_over_the_first_batches_and_ends_with_the_epoch(batches, rows):
    step = step_of(global_batch_size=4)
    randomize(step.model, seed=0, scale=0.5)
    document = np.random.default_rng(0).integers(0, 11, 48)  # ten rows, the last of three tokens
    tokens = PackedTokens(document, np.array([48]), TINY.max_length, end_of_text=7)
    ids, weights = tokens.batch(seed=0, first=0, count=rows)
    expected = numpy_loss(NumpyGPT2(step.model), ids, weights)
    assert step.mean_nll(tokens, batches) == pytest.approx(expected, rel=1e-5)


def test_the_mean_nll_takes_one_micro_batch_at_a_time(monkeypatch):
    step = step_of(global_batch_size=6, accumulation_steps=3)
    randomize(step.model, seed=0, scale=0.5)
    shapes = []
    hidden_states = step.model.hidden_states

    def watched(ids_BT: tf.Tensor, **options: Any) -> tf.Tensor:
        shapes.append(tuple(ids_BT.shape))
        return hidden_states(ids_BT, **options)

    monkeypatch.setattr(step.model, "hidden_states", watched)
    tokens = PackedTokens(np.arange(48) % 11, np.array([48]), TINY.max_length, end_of_text=7)
    expected = numpy_loss(NumpyGPT2(step.model), *tokens.batch(seed=0, first=0, count=6))
    assert step.mean_nll(tokens, 1) == pytest.approx(expected, rel=1e-5)
    assert shapes == [(2, TINY.max_length)]


def test_measuring_changes_nothing():
    step = step_of(GPT2Config(**(SMALL | {"dropout": 0.5})), global_batch_size=2)
    tokens = PackedTokens(np.arange(48), np.array([48]), 12, end_of_text=0)
    before = step.model.get_weights()
    assert step.mean_nll(tokens, 2) == step.mean_nll(tokens, 2)
    assert step.steps_done == 0
    for old, new in zip(before, step.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_copied_model_is_an_ordinary_one_with_the_same_weights():
    step = step_of()
    step.update(*batch_of(TINY, rows=2))
    copy = step.copy_model()
    assert type(copy) is GPT2
    assert copy.config == TINY
    before = [np.array(weight) for weight in copy.get_weights()]
    ids, weights = batch_of(TINY, rows=2)
    assert step.update(ids, weights).loss == pytest.approx(
        numpy_loss(NumpyGPT2(copy), ids, weights), rel=1e-5
    )
    for old, new in zip(before, copy.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# --- dropout ---

DROPOUT = GPT2Config(**(SMALL | {"num_layers": 1, "dropout": 0.5}))


def losses(seed: int, *, xla: bool, steps_before: int = 0) -> list[float]:
    """The losses of four updates with one batch, while all weights stand still, the same each time.

    So it is the masks alone that make them differ.
    """
    step = step_of(DROPOUT, xla=xla, seed=seed, learning_rate=1e-30, weight_decay=0.0)
    randomize(step.model, seed=0)
    step.state["steps"].assign(steps_before)
    ids, weights = batch_of(DROPOUT, rows=2)
    return [step.update(ids, weights).loss for _ in range(4)]


@pytest.mark.parametrize("xla", [False, True])
def test_each_seed_and_each_update_has_masks_of_its_own(xla):
    assert len({*losses(1, xla=xla), *losses(2, xla=xla)}) == 8


def test_masks_do_not_come_again_after_many_steps():
    late = losses(1, xla=False, steps_before=2**24 - 2)  # the third is that of number 2**24
    assert not {*late, *losses(1, xla=False, steps_before=2**31 - 2)} & {*losses(1, xla=False)}
    assert len({*late}) == 4


def test_the_same_seed_has_the_same_masks():
    assert losses(1, xla=False) == losses(1, xla=False)


def test_each_layer_draws_a_mask_of_its_own_at_its_rate():
    step = step_of(DROPOUT, seed=3)
    block = step.model.blocks[0]
    layers = [
        step.model.embedding_dropout,
        block.attention.attention_dropout,
        block.attention.output_dropout,
        block.feed_forward.output_dropout,
    ]
    ones = tf.ones([2000])
    with step._gradients._dropout_seeds(tf.constant(5, tf.uint32)):
        masks = [np.array(layer(ones, training=True)) for layer in layers]
    for index, mask in enumerate(masks):
        assert set(mask) == {0.0, 2.0}
        assert abs((mask == 0).mean() - 0.5) < 0.05
        for other in masks[:index]:
            # Two that have nothing to do with each other agree on half of the places.
            assert abs((mask == other).mean() - 0.5) < 0.05


def test_the_largest_seed_works():
    assert np.isfinite(losses(2**32 - 1, xla=False)).all()
