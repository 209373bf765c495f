"""model/loss.py against float64 NumPy: values and gradients."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from model.compilation import compiled
from model.loss import summed_cross_entropy, token_nll
from tests.numpy_gpt2 import log_softmax

# Shapes: B batch, T positions, D embedding width, V vocabulary.
B, T, D, V = 2, 5, 4, 7

MODES: dict[str, Callable[[Any], Any]] = {
    "eager": lambda function: function,
    "graph": tf.function,
    "xla": lambda function: tf.function(function, jit_compile=True),
    "around_products": lambda function: compiled(function, "around_products"),
}


class Case:
    """Random arguments, the loss and its gradients by NumPy."""

    def __init__(self, seed: int = 0, scale: float = 1.0, offset: float = 0.0) -> None:
        generator = np.random.default_rng(seed)
        self.hidden_BTD = (scale * generator.standard_normal((B, T, D))).astype(np.float32)
        self.embedding_VD = generator.standard_normal((V, D)).astype(np.float32)
        if offset:  # the same for each of a position's logits
            self.hidden_BTD[..., 0], self.embedding_VD[:, 0] = offset / 8, 8
        self.targets_BT = generator.integers(0, V, (B, T)).astype(np.int32)
        # 0 leaves a position out, and a fraction counts as such.
        self.weights_BT = generator.choice([0.0, 0.5, 1.0], (B, T)).astype(np.float32)
        assert {0.0, 0.5, 1.0} <= set(self.weights_BT.flat)

        hidden_BTD, embedding_VD, weights_BT1 = (
            array.astype(np.float64)
            for array in (self.hidden_BTD, self.embedding_VD, self.weights_BT[..., None])
        )
        log_p_BTV = log_softmax(hidden_BTD @ embedding_VD.T)
        one_hot_BTV = np.eye(V)[self.targets_BT]
        d_logits_BTV = weights_BT1 * (np.exp(log_p_BTV) - one_hot_BTV)
        self.nll_BT = -(one_hot_BTV * log_p_BTV).sum(axis=-1)
        self.loss = float((weights_BT1[..., 0] * self.nll_BT).sum())
        self.d_hidden_BTD = d_logits_BTV @ embedding_VD
        self.d_embedding_VD = np.einsum("btv,btd->vd", d_logits_BTV, hidden_BTD)

    def loss_and_gradients(
        self, mode: str, chunk_size: int, vocab_multiple: int = 1, dtype: str = "float32"
    ) -> tuple[Any, Any, Any]:
        @MODES[mode]
        def run(hidden_BTD: Any, embedding_VD: Any) -> tuple[Any, Any, Any]:
            with tf.GradientTape() as tape:
                tape.watch([hidden_BTD, embedding_VD])
                loss = summed_cross_entropy(
                    hidden_BTD,
                    embedding_VD,
                    self.targets_BT,
                    self.weights_BT,
                    chunk_size,
                    vocab_multiple,
                    "around_products" if mode == "around_products" else "none",
                )
                scaled = 3 * loss  # so that what comes from above must be heeded
            return (loss, *tape.gradient(scaled, [hidden_BTD, embedding_VD]))

        return run(tf.cast(self.hidden_BTD, dtype), tf.cast(self.embedding_VD, dtype))


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("chunk_size", [1, 3, 5, 10, 512])
def test_the_summed_loss_and_both_gradients_equal_numpys(mode, chunk_size):
    case = Case(seed=chunk_size)
    loss, d_hidden_BTD, d_embedding_VD = case.loss_and_gradients(mode, chunk_size)
    assert loss.dtype == tf.float32
    assert float(loss) == pytest.approx(case.loss, rel=1e-5)
    np.testing.assert_allclose(d_hidden_BTD, 3 * case.d_hidden_BTD, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(d_embedding_VD, 3 * case.d_embedding_VD, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("vocab_multiple", "offset"), [(4, -100.0), (7, 0.0), (64, -100.0)])
def test_a_vocabulary_made_larger_changes_no_loss_and_no_gradient(mode, vocab_multiple, offset):
    # Where all true logits lie far below zero, an added one of zero would outweigh them all.
    case = Case(seed=vocab_multiple, offset=offset)
    loss, d_hidden_BTD, d_embedding_VD = case.loss_and_gradients(mode, 4, vocab_multiple)
    assert d_embedding_VD.shape == (V, D)
    assert float(loss) == pytest.approx(case.loss, rel=1e-5)
    np.testing.assert_allclose(d_hidden_BTD, 3 * case.d_hidden_BTD, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(d_embedding_VD, 3 * case.d_embedding_VD, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2e-2), ("float16", 2e-3)])
@pytest.mark.parametrize("vocab_multiple", [1, 8])
def test_in_16_bits_loss_and_gradients_are_near_numpys(dtype, tolerance, vocab_multiple):
    case = Case(seed=2)
    loss, *gradients = case.loss_and_gradients("graph", 4, vocab_multiple, dtype)
    assert loss.dtype == tf.float32
    assert float(loss) == pytest.approx(case.loss, rel=tolerance)
    for found, expected in zip(gradients, [case.d_hidden_BTD, case.d_embedding_VD], strict=True):
        assert found.dtype == dtype
        largest = np.abs(3 * expected).max()
        np.testing.assert_allclose(
            tf.cast(found, tf.float32), 3 * expected, rtol=0, atol=tolerance * largest
        )


@pytest.mark.parametrize("mode", ["graph", "xla"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_16_bits_softmax_and_sums_are_made_in_float32(mode, dtype):
    # Five thousand equal logits: in 16 bits neither the sum of so many ones nor its logarithm nor
    # the sum of so many losses has a value of its own, and the last is too large for float16.
    hidden_BTD, embedding_VD = tf.zeros([10, 1000, 1], dtype), tf.ones([5000, 1], dtype)
    run = MODES[mode](summed_cross_entropy)
    loss = run(hidden_BTD, embedding_VD, tf.zeros([10, 1000], tf.int32), tf.ones([10, 1000]), 2000)
    assert float(loss) == pytest.approx(10_000 * np.log(5000), rel=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_16_bits_a_fraction_of_a_weight_is_kept_and_all_logits_are_rounded_alike(dtype):
    # Either factor is exact in 16 bits, and their product, a logit, needs more of them.
    hidden_BTD = tf.constant([[[1 + 2.0**-7]]], dtype)
    embedding_VD = tf.constant([[0.0], [1 + 2.0**-7]], dtype)
    logit = (1 + 2.0**-7) ** 2
    rounded = float(tf.cast(logit, dtype))
    assert rounded != logit
    loss = summed_cross_entropy(
        hidden_BTD, embedding_VD, tf.constant([[1]]), tf.constant([[0.3]]), 1
    )
    assert float(loss) == pytest.approx(0.3 * (np.log(1 + np.exp(rounded)) - rounded), rel=1e-6)


@pytest.mark.parametrize("mode", ["graph", "xla", "around_products"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_16_bits_a_loss_is_never_below_zero_and_is_that_of_scoring(mode, dtype):
    generator = np.random.default_rng(5)
    embedding_VD = tf.cast(generator.standard_normal([7, 64]) * 4, dtype)
    targets_BT = np.arange(7)[None]
    hidden_BTD = tf.gather(embedding_VD, targets_BT)  # so sure of each target that rounding shows
    run = MODES[mode](summed_cross_entropy)
    for position in range(7):
        weights_BT = tf.one_hot([position], 7)
        loss = run(hidden_BTD, embedding_VD, tf.constant(targets_BT), weights_BT)
        nll_N = token_nll(hidden_BTD[0], embedding_VD, tf.constant(targets_BT[0]))
        assert 0 <= float(loss) == pytest.approx(float(nll_N[position]), abs=1e-6)


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_logits_in_the_thousands_do_not_overflow(mode):
    case = Case(seed=1, scale=1000.0)
    loss, d_hidden_BTD, d_embedding_VD = case.loss_and_gradients(mode, 4)
    assert case.loss > 5000
    assert float(loss) == pytest.approx(case.loss, rel=1e-5)
    np.testing.assert_allclose(d_hidden_BTD, 3 * case.d_hidden_BTD, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(d_embedding_VD, 3 * case.d_embedding_VD, rtol=1e-3, atol=1.0)


def test_a_position_of_weight_zero_does_not_matter():
    case = Case()
    case.weights_BT[:] = 1
    case.weights_BT[1, 2:] = 0
    before = case.loss_and_gradients("graph", 3)
    case.targets_BT[1, 2:] = (case.targets_BT[1, 2:] + 1) % V
    after = case.loss_and_gradients("graph", 3)
    for first, second in zip(before, after, strict=True):
        np.testing.assert_array_equal(first, second)
    assert (np.array(before[1])[1, 2:] == 0).all()
    assert (np.array(before[1])[1, :2] != 0).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunk_size", [1, 3, 10, 512])
def test_the_nll_of_each_token_equals_numpys(mode, chunk_size):
    case = Case(seed=chunk_size)

    @MODES[mode]
    def run(hidden_ND: Any, embedding_VD: Any, targets_N: Any) -> Any:
        return token_nll(hidden_ND, embedding_VD, targets_N, chunk_size)

    nll_N = run(
        tf.reshape(case.hidden_BTD, [-1, D]),
        tf.constant(case.embedding_VD),
        tf.reshape(case.targets_BT, [-1]),
    )
    assert nll_N.dtype == tf.float32
    np.testing.assert_allclose(nll_N, case.nll_BT.reshape(-1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("positions", [0, 1, 3, 4, 10])
def test_the_number_of_tokens_may_be_unknown_when_the_graph_is_built(positions):
    case = Case()
    run = tf.function(
        lambda hidden_ND, targets_N: token_nll(hidden_ND, case.embedding_VD, targets_N, 4),
        input_signature=[tf.TensorSpec([None, D]), tf.TensorSpec([None], tf.int32)],
    )
    nll_N = run(case.hidden_BTD.reshape(-1, D)[:positions], case.targets_BT.reshape(-1)[:positions])
    assert nll_N.shape == (positions,)
    np.testing.assert_allclose(nll_N, case.nll_BT.reshape(-1)[:positions], rtol=1e-5, atol=1e-6)
