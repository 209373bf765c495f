"""model/train_step.py: what a training run may switch on."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model import GPT2Config, gradients
from model.packing import PackedTokens
from model.train_step import StepResult, TrainStep
from model.update_guards import SpikeGuard
from tests.numpy_gpt2 import NumpyGPT2
from tests.small_models import SMALL, randomize
from tests.small_steps import (
    TINY,
    batch_of,
    first_moments,
    numpy_loss,
    ragged_batch,
    random_step_of,
    step_of,
)

SMALL_DROPOUT = GPT2Config(**(SMALL | {"num_layers": 2, "dropout": 0.2}))
START = 7


def assert_near(found: TrainStep, expected: TrainStep, tolerance: float) -> None:
    """Compares gradients by their running means, relative to the largest of each."""
    moments = first_moments(found)
    for name, moment in first_moments(expected).items():
        largest = np.abs(moment).max()
        np.testing.assert_allclose(
            moments[name], moment, rtol=0, atol=tolerance * largest + 1e-8, err_msg=name
        )


# --- micro-batches, recomputation, a larger vocabulary: nothing changes ---


@pytest.mark.parametrize(
    "settings",
    [
        {"accumulation_steps": 3},
        {"accumulation_steps": 6, "xla": True, "recompute": "block", "vocab_multiple": 8},
    ],
)
def test_micro_batches_make_the_updates_of_one_batch(settings):
    whole, cut = (
        random_step_of(global_batch_size=6),
        random_step_of(global_batch_size=6, **settings),
    )
    for seed in range(3):
        ids, weights = ragged_batch(TINY, 6, seed)
        expected, found = whole.update(ids, weights), cut.update(ids, weights)
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)
        assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-5)
    assert_near(cut, whole, 1e-5)
    variables = zip(cut.model.trainable_variables, whole.model.trainable_variables, strict=True)
    for variable, expected in variables:
        values, others = np.array(variable), np.array(expected)
        if variable.path.endswith("query_key_value/bias"):
            # The keys' is no matter of the loss: its gradient is zero but for rounding, which Adam
            # makes into steps.
            values[4:8] = others[4:8]
        np.testing.assert_allclose(values, others, rtol=1e-5, atol=1e-5 * np.abs(others).max())


def test_each_micro_batch_has_masks_of_its_own():
    # All rows are alike: two of them have one's loss, unless their masks are others.
    one = random_step_of(SMALL_DROPOUT, seed=1)
    two = random_step_of(SMALL_DROPOUT, seed=1, accumulation_steps=2)
    ids, weights = batch_of(SMALL_DROPOUT, 1)
    alike = np.repeat(ids, 2, axis=0), np.repeat(weights, 2, axis=0)
    assert two.update(*alike).loss != pytest.approx(one.update(ids, weights).loss, rel=1e-4)


@pytest.mark.parametrize("part", ["attention", "block"])
def test_recomputation_has_the_masks_and_the_updates_of_a_plain_step(part):
    plain, again = random_step_of(SMALL_DROPOUT), random_step_of(SMALL_DROPOUT, recompute=part)
    for seed in range(3):
        batch = ragged_batch(SMALL_DROPOUT, 3, seed)
        expected, found = plain.update(*batch), again.update(*batch)
        assert found.loss == pytest.approx(expected.loss, rel=1e-6)
        assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-5)


def test_the_vocabularys_multiple_reaches_the_loss_and_changes_no_update(monkeypatch):
    plain, larger = random_step_of(), random_step_of(vocab_multiple=8)
    batch = ragged_batch(TINY, 3, 0)
    expected = plain.update(*batch)
    multiples = []

    def watched(*arguments: Any, **settings: Any) -> tf.Tensor:
        multiples.append(settings["vocab_multiple"])
        return loss(*arguments, **settings)

    loss = gradients.summed_cross_entropy
    monkeypatch.setattr(gradients, "summed_cross_entropy", watched)
    found = larger.update(*batch)
    assert multiples == [8]
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert_near(larger, plain, 1e-5)


@pytest.mark.parametrize("recompute", ["attention", "block"])
def test_compiled_around_its_products_a_step_has_the_updates_of_a_plain_one(recompute, monkeypatch):
    settings = {"document_start": START, "document_mask": True, "vocab_multiple": 8}
    plain = random_step_of(SMALL_DROPOUT, **settings, accumulation_steps=2)
    monkeypatch.setattr(gradients, "compilation_of", lambda config: "around_products")
    step = random_step_of(SMALL_DROPOUT, **settings, accumulation_steps=2, recompute=recompute)
    for seed in range(3):
        batch = ragged_batch(SMALL_DROPOUT, 4, seed)
        expected, found = plain.update(*batch), step.update(*batch)
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)
        assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-5)


# --- 16 bits ---


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("mixed_bfloat16", 0.03), ("mixed_float16", 0.004)]
)
def test_in_16_bits_losses_and_gradients_are_near_numpys(precision, tolerance):
    plain, step = random_step_of(), random_step_of(precision=precision)
    assert step.model.blocks[0].compute_dtype == precision.removeprefix("mixed_")
    assert {variable.dtype for variable in step.model.trainable_variables} == {"float32"}
    for seed in range(3):
        batch = ragged_batch(TINY, 6, seed)
        expected = numpy_loss(NumpyGPT2(step.model), *batch)
        found, in_32_bits = step.update(*batch), plain.update(*batch)
        assert found.applied
        assert found.loss == pytest.approx(expected, rel=tolerance)
        assert found.gradient_norm == pytest.approx(in_32_bits.gradient_norm, rel=2 * tolerance)
        if seed == 0:
            assert_near(step, plain, 2 * tolerance)
    assert type(step.copy_model()).__name__ == "GPT2"
    assert step.copy_model().compute_dtype == "float32"


def test_gradients_too_small_for_float16_arrive_by_the_scale_of_the_loss():
    def kernels_gradient(precision: str, loss_scale: float | None = None) -> np.ndarray:
        step = random_step_of(precision=precision, beta_1=0.0)
        attention = step.model.blocks[0].attention
        # Two small factors that numbers of 16 bits have room for, but not their product.
        step.model.final_norm.gamma.assign([1e-4] * 4)
        attention.output_projection.kernel.assign(1e-3 * attention.output_projection.kernel)
        if loss_scale:
            step.state["loss_scale"].value.assign(loss_scale)
        assert step.update(*batch_of(TINY, rows=3)).applied
        return first_moments(step)["block_0/attention/query_key_value/kernel"]

    expected = kernels_gradient("float32")
    largest = np.abs(expected).max()
    assert 0 < largest < 2.0**-24  # the least number in float16
    found = kernels_gradient("mixed_float16")
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.02 * largest)
    assert (kernels_gradient("mixed_float16", loss_scale=1.0) == 0).all()


# --- averages ---


def test_the_averaged_weights_are_measured_and_copied_but_not_trained_on():
    step = random_step_of(average_decay=0.9, learning_rate=0.1, global_batch_size=2)
    kept = (0.0, 1 / 11, 2 / 12)  # after n updates, n / (n + 10) of the average
    averages: list[np.ndarray] = []
    for seed in range(3):
        batch = batch_of(TINY, 2, seed)
        loss = numpy_loss(NumpyGPT2(step.model), *batch)
        assert step.update(*batch).loss == pytest.approx(loss, rel=1e-4)
        weights = [np.array(v, np.float64) for v in step.model.trainable_variables]
        averages = [
            kept[seed] * average + (1 - kept[seed]) * weight
            for average, weight in zip(averages or weights, weights, strict=True)
        ]
    copy = step.copy_model()
    for found, average in zip(copy.trainable_variables, averages, strict=True):
        np.testing.assert_allclose(found, average, rtol=1e-5, atol=1e-6)
    tokens = PackedTokens(np.arange(40) % 11, np.array([40]), TINY.max_length, end_of_text=7)
    expected = numpy_loss(NumpyGPT2(copy), *tokens.batch(seed=0, first=0, count=4))
    assert step.mean_nll(tokens, 2) == pytest.approx(expected, rel=1e-5)
    trained = numpy_loss(NumpyGPT2(step.model), *tokens.batch(seed=0, first=0, count=4))
    assert abs(trained - expected) > 1e-3


# --- documents ---


def test_under_a_document_mask_loss_and_gradients_are_those_of_each_document_alone():
    row = [START, 3, START, 4, 5, 6]  # its last one is a target alone
    alone = [[START, 3, START, 0, 0, 0], [START, 4, 5, 6, 0, 0]]
    alone_weights = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]], np.float32)
    masked, plain = random_step_of(document_mask=True, document_start=START), random_step_of()
    expected = plain.update(np.array(alone, np.int32), alone_weights)
    found = masked.update(np.array([row], np.int32), np.ones((1, 5), np.float32))
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert_near(masked, plain, 1e-5)
    unmasked = random_step_of().update(np.array([row], np.int32), np.ones((1, 5), np.float32))
    assert abs(unmasked.loss - found.loss) > 1e-3


def test_under_a_document_mask_the_mean_nll_is_numpys_over_documents():
    step = random_step_of(document_mask=True, document_start=START, global_batch_size=2)
    stream = np.array([1, 2, START, 3, START, 4, 5, 6, 8, START])
    tokens = PackedTokens(stream, np.array([3, 2, 5]), TINY.max_length, end_of_text=START)
    ids, _ = tokens.batch(seed=0, first=0, count=2)
    numpy_model = NumpyGPT2(step.model)
    nll: list[float] = []
    for row in ids:
        starts = np.flatnonzero(row[:-1] == START)
        cuts = [cut for cut in (0, *starts, 5) if cut not in (0, 5)]
        for first, end in zip([0, *cuts], [*cuts, 5], strict=True):
            nll.extend(numpy_model.nll(row[first:end], row[first + 1 : end + 1]))
    assert len(nll) == 10
    assert step.mean_nll(tokens, 1) == pytest.approx(np.mean(nll), rel=1e-5)


# --- going on from a checkpoint ---


def saved_tensors(step: TrainStep, path: str) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(tf.train.Checkpoint(**step.state).write(path))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
    }


def test_with_everything_on_a_restored_step_goes_on_bit_for_bit(tmp_path):
    def new_step() -> TrainStep:
        step = step_of(
            SMALL_DROPOUT,
            global_batch_size=4,
            accumulation_steps=2,
            precision="mixed_float16",
            recompute="attention",
            document_mask=True,
            document_start=START,
            vocab_multiple=8,
            skip_spikes=3.0,
            average_decay=0.9,
            steps=12,
            warmup_steps=2,
            learning_rate=0.01,
        )
        step._spike_guard = SpikeGuard(3.0, steps=3)
        return step

    tokens = PackedTokens(np.arange(80) % 9, np.array([80]), 12, end_of_text=0)

    def go_on(step: TrainStep, first: int, last: int) -> list[StepResult]:
        return [
            step.update(*ragged_batch(SMALL_DROPOUT, 4, number))
            for number in range(first, last + 1)
        ]

    stayed, restored = new_step(), new_step()
    assert stayed.state.keys() == {"model", "optimizer", "steps", "loss_scale", "spike_guard"}
    randomize(stayed.model, seed=0)
    stayed.state["loss_scale"].value.assign(2.0**40)
    assert not any(result.applied for result in go_on(stayed, 1, 2))  # overflows
    stayed.state["loss_scale"].value.assign(2.0**12)
    applied = go_on(stayed, 3, 4)
    assert all(result.applied for result in applied)
    # As if all norms so far had been half of these: the next are spikes, then they are let through.
    guard, usual = stayed.state["spike_guard"], applied[-1].gradient_norm / 2
    guard._count.assign(3.0)
    guard._mean.assign(usual)
    guard._variance.assign(usual / 100)
    path = tf.train.Checkpoint(**stayed.state).write(str(tmp_path / "saved"))
    tf.train.Checkpoint(**restored.state).read(path).assert_consumed()
    assert (restored.steps_done, restored.updates_skipped) == (4, 2)

    expected = go_on(stayed, 5, 12)
    assert go_on(restored, 5, 12) == expected
    assert {result.applied for result in expected} == {False, True}  # there are spikes as well
    assert restored.mean_nll(tokens, 2) == stayed.mean_nll(tokens, 2)
    found = saved_tensors(restored, str(tmp_path / "restored"))
    others = saved_tensors(stayed, str(tmp_path / "stayed"))
    assert found.keys() == others.keys()
    for name, value in others.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
