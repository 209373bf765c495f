"""model/gpt2.py against NumPy, and as an ordinary Keras model."""

import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from model import GPT2, GPT2Config
from model.gpt2 import split_documents
from tests.numpy_gpt2 import NumpyGPT2, layer_norm, softmax
from tests.small_models import SMALL, random_gpt2

VOCAB_SIZE = 61
MAX_LENGTH = 12


def random_ids(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB_SIZE, shape).astype(np.int32)


def cross_entropy(model: GPT2, ids: np.ndarray, targets: np.ndarray) -> float:
    numpy_model = NumpyGPT2(model)
    rows = zip(ids, targets, strict=True)
    return float(np.mean([numpy_model.nll(inputs, row) for inputs, row in rows]))


# --- the function that it computes ---


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"num_heads": 1, "num_layers": 3},
        {"num_heads": 12, "num_layers": 1, "feed_forward_dim": 1},
        {"layer_norm_epsilon": 0.5},
    ],
)
def test_the_logits_equal_numpys(seed, sizes):
    model = random_gpt2(seed, **sizes)
    ids_BT = random_ids(seed, 2, MAX_LENGTH)
    numpy_model = NumpyGPT2(model)
    expected = np.array([numpy_model.logits(ids_T) for ids_T in ids_BT])
    scale = np.abs(expected).max()
    np.testing.assert_allclose(model.logits(ids_BT), expected, rtol=0, atol=1e-5 * scale)


def test_calling_the_model_gives_the_softmax_of_numpys_logits():
    model = random_gpt2()
    ids_BT = random_ids(0, 1, MAX_LENGTH)
    expected = softmax(NumpyGPT2(model).logits(ids_BT[0]))
    probabilities = model(ids_BT)
    assert probabilities.dtype == tf.float32
    np.testing.assert_allclose(probabilities[0], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("length", [1, 2, MAX_LENGTH - 1])
def test_a_sequence_shorter_than_the_maximum_gets_numpys_logits(length):
    model = random_gpt2()
    ids_BT = random_ids(length, 3, length)
    expected = [NumpyGPT2(model).logits(ids_T) for ids_T in ids_BT]
    np.testing.assert_allclose(model.logits(ids_BT), expected, rtol=1e-4, atol=1e-4)


def test_a_model_that_was_not_built_is_built_by_its_first_sequence():
    model = GPT2(**SMALL)
    ids_BT = random_ids(0, 1, 5)
    logits = model.logits(ids_BT)
    np.testing.assert_allclose(logits[0], NumpyGPT2(model).logits(ids_BT[0]), rtol=1e-4, atol=1e-6)
    assert model.count_params() == 3268  # all positions are there, not five alone


@pytest.mark.parametrize("position", range(1, MAX_LENGTH))
def test_a_changed_token_leaves_all_earlier_logits_as_they_were_to_the_bit(position):
    model = random_gpt2()
    ids_BT = random_ids(0, 2, MAX_LENGTH)
    before = np.array(model.logits(ids_BT))
    ids_BT[:, position] = (ids_BT[:, position] + 1) % VOCAB_SIZE
    after = np.array(model.logits(ids_BT))
    assert (before[:, :position] == after[:, :position]).all()
    assert (before[:, position] != after[:, position]).any()


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.05), ("float16", 0.006)])
def test_in_16_bits_the_logits_are_float32_and_near_numpys(dtype, tolerance):
    model = random_gpt2(dtype=f"mixed_{dtype}")
    ids_BT = random_ids(0, 1, MAX_LENGTH)
    logits = model.logits(ids_BT)
    expected = NumpyGPT2(model).logits(ids_BT[0])
    assert logits.dtype == tf.float32
    assert model.blocks[1].feed_forward.expansion.compute_dtype == dtype
    np.testing.assert_allclose(logits[0], expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_16_bits_every_normalisation_is_made_in_float32(dtype):
    model = random_gpt2(dtype=f"mixed_{dtype}")
    # Neighbours in bfloat16: neither their mean nor, in float16, their squares have a value there.
    x_BTD = tf.constant([[[256.0 + 2 * (index % 4) for index in range(12)]]], dtype)
    norms = [model.final_norm]
    for block in model.blocks:
        norms += [block.attention_norm, block.feed_forward_norm]
    for norm in norms:
        gamma, beta = (np.array(tf.cast(v, dtype), np.float64) for v in (norm.gamma, norm.beta))
        expected = layer_norm(np.array(x_BTD, np.float64), gamma, beta, model.final_norm.epsilon)
        found = norm(x_BTD)
        assert found.dtype == dtype
        np.testing.assert_allclose(tf.cast(found, tf.float32), expected, rtol=5e-3, atol=5e-3)


def test_a_sequence_longer_than_the_maximum_is_an_error_with_both_lengths():
    with pytest.raises(ValueError, match="at most max_length=12 tokens, got 13"):
        random_gpt2()(random_ids(0, 1, 13))


@pytest.mark.parametrize(
    ("ids", "got"),
    [
        ([1, 2], r"int32 of shape \(2,\)"),
        ([[[1]]], r"int32 of shape \(1, 1, 1\)"),
        ([[1.5]], r"float32 of shape \(1, 1\)"),
        ([[]], r"float32 of shape \(1, 0\)"),
    ],
)
def test_ids_that_are_no_matrix_of_integers_are_an_error(ids, got):
    with pytest.raises(ValueError, match=rf"ids must be integers of shape \[B, T\], got {got}$"):
        random_gpt2().logits(ids)


@pytest.mark.parametrize("bad", [-1, SMALL["vocab_size"]])
def test_an_id_outside_of_the_vocabulary_is_an_error_with_the_id(bad):
    model = random_gpt2()
    message = rf"ids must be in \[0, vocab_size={SMALL['vocab_size']}\), got {bad}\b"
    for call in (model, model.logits):
        with pytest.raises(ValueError, match=message):
            call(np.array([[0, bad, 1]]))


def test_a_sequence_whose_length_shows_only_in_the_graph_is_checked_there():
    model = random_gpt2()
    logits = tf.function(
        model.logits, input_signature=[tf.TensorSpec([None, None], tf.int32)], autograph=False
    )
    assert logits(random_ids(0, 1, 12)).shape == (1, 12, VOCAB_SIZE)
    with pytest.raises(tf.errors.InvalidArgumentError, match="longer than max_length"):
        logits(random_ids(0, 1, 13))


# --- several documents in a row ---

START = 7
DOCUMENTS = [
    [START, 3, 9, START, START, 4, 5, 6, 8, 3],  # one of them is empty
    [3, 9, 4, 5, START, 1, 2, 3, 4, 5],  # the end of one from another row comes first
    [3, 9, 4, 5, 6, 1, 2, 3, 4, START],
    [1, 2, 3, 4, 5, 6, 8, 9, 10, 11],
]


def test_documents_and_positions_are_counted_from_each_start():
    documents_BT, positions_BT = split_documents(tf.constant(DOCUMENTS), START)
    assert documents_BT.numpy().tolist() == [
        [1, 1, 1, 2, 3, 3, 3, 3, 3, 3],
        [0, 0, 0, 0, 1, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert positions_BT.numpy().tolist() == [
        [0, 1, 2, 0, 0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 0],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    ]


def test_with_a_documents_start_each_document_is_as_if_alone():
    model = random_gpt2()
    numpy_model = NumpyGPT2(model)
    expected = []
    for row in DOCUMENTS:
        documents = np.split(row, np.flatnonzero(np.array(row) == START))
        hidden = [numpy_model.hidden_states(part) for part in documents if len(part)]
        expected.append(np.concatenate(hidden))
    found = tf.function(model.hidden_states)(tf.constant(DOCUMENTS), document_start=START)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_without_one_a_row_is_one_document():
    model = random_gpt2()
    expected = [NumpyGPT2(model).hidden_states(row) for row in DOCUMENTS]
    np.testing.assert_allclose(model.hidden_states(DOCUMENTS), expected, rtol=1e-4, atol=1e-5)


def test_documents_are_split_in_rows_of_a_length_that_shows_only_in_the_graph():
    model = random_gpt2()
    run = tf.function(
        lambda ids_BT: model.hidden_states(ids_BT, document_start=START),
        input_signature=[tf.TensorSpec([None, None], tf.int32)],
    )
    for rows, length in ((4, 10), (1, 5)):
        ids_BT = np.array(DOCUMENTS)[:rows, :length]
        expected = model.hidden_states(ids_BT, document_start=START)
        np.testing.assert_allclose(run(ids_BT), expected, rtol=1e-4, atol=1e-5)


# --- weights and dropout ---


def test_weights_begin_as_openais():
    keras.utils.set_random_seed(0)
    model = GPT2(
        vocab_size=2000,
        max_length=500,
        embedding_dim=128,
        num_layers=8,
        num_heads=4,
        feed_forward_dim=512,
    )
    model.build((None, 500))

    def assert_drawn(variable: Any, stddev: float) -> None:
        values = np.array(variable)
        assert values.std() == pytest.approx(stddev, rel=0.03), variable.path
        assert abs(values.mean()) < 0.03 * stddev, variable.path

    assert_drawn(model.token_embedding.embeddings, 0.02)
    assert_drawn(model.position_embedding.embeddings, 0.01)
    for block in model.blocks:
        assert_drawn(block.attention.query_key_value.kernel, 0.02)
        assert_drawn(block.feed_forward.expansion.kernel, 0.02)
        # 0.02 / sqrt(2 * 8 layers)
        assert_drawn(block.attention.output_projection.kernel, 0.005)
        assert_drawn(block.feed_forward.output_projection.kernel, 0.005)
    for variable in model.trainable_variables:
        if variable.name in ("bias", "beta"):
            assert (np.array(variable) == 0).all(), variable.path
        elif variable.name == "gamma":
            assert (np.array(variable) == 1).all(), variable.path


def test_the_default_model_has_124_439_808_parameters():
    model = GPT2(**GPT2Config().to_dict())
    model.build((None, 1024))
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == 124_439_808


def test_without_training_there_is_no_dropout():
    model = random_gpt2(dropout=0.5)
    ids_BT = random_ids(0, 2, MAX_LENGTH)
    expected = [NumpyGPT2(model).logits(ids_T) for ids_T in ids_BT]
    np.testing.assert_allclose(model.logits(ids_BT), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.predict(ids_BT, verbose=0), softmax(np.array(expected)), 1e-3)


def test_in_training_dropout_draws_anew_each_time():
    model = random_gpt2(dropout=0.5)
    ids_BT = random_ids(0, 2, MAX_LENGTH)
    first = np.array(model.logits(ids_BT, training=True))
    second = np.array(model.logits(ids_BT, training=True))
    assert (first != second).mean() > 0.9


def test_dropout_falls_on_the_embeddings_too():
    model = random_gpt2(dropout=0.5)
    for block in model.blocks:
        for layer in (block.attention, block.feed_forward):
            layer.output_projection.kernel.assign(np.zeros(layer.output_projection.kernel.shape))
            layer.output_projection.bias.assign(np.zeros(layer.output_projection.bias.shape))
    ids_BT = random_ids(0, 20, MAX_LENGTH)
    quiet = np.array(model.hidden_states(ids_BT))
    loud = np.array(model.hidden_states(ids_BT, training=True))
    assert (quiet != loud).any(axis=-1).all()


def test_a_model_of_no_dropout_is_the_same_in_training():
    model = random_gpt2(dropout=0.0)
    ids_BT = random_ids(0, 2, MAX_LENGTH)
    assert (np.array(model.logits(ids_BT)) == np.array(model.logits(ids_BT, training=True))).all()


# --- as a Keras model ---


def functional_gpt2() -> keras.Model:
    """As users build it, with smaller sizes."""
    inputs = keras.Input(shape=(MAX_LENGTH,), dtype=tf.int32)
    outputs = GPT2(
        vocab_size=VOCAB_SIZE,
        max_length=MAX_LENGTH,
        embedding_dim=12,
        num_layers=2,
        num_heads=3,
        feed_forward_dim=20,
    )(inputs)
    gpt2 = keras.Model(inputs, outputs)
    gpt2.build(input_shape=(1, MAX_LENGTH))
    gpt2.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    return gpt2


def inner_gpt2(model: keras.Model) -> GPT2:
    (inner,) = [layer for layer in model.layers if isinstance(layer, GPT2)]
    return inner


def test_the_string_loss_is_the_true_cross_entropy_and_begins_at_the_log_of_the_vocabulary():
    gpt2 = functional_gpt2()
    ids, targets = random_ids(0, 8, MAX_LENGTH), random_ids(1, 8, MAX_LENGTH)
    loss = gpt2.evaluate(ids, targets, verbose=0)
    assert loss == pytest.approx(cross_entropy(inner_gpt2(gpt2), ids, targets), rel=1e-5)
    assert loss == pytest.approx(math.log(VOCAB_SIZE), abs=0.05)


def test_the_string_loss_loses_nothing_where_probabilities_are_below_keras_epsilon():
    gpt2 = functional_gpt2()
    gamma = inner_gpt2(gpt2).final_norm.gamma
    gamma.assign(np.full(gamma.shape, 500.0))
    ids, targets = random_ids(0, 8, MAX_LENGTH), random_ids(1, 8, MAX_LENGTH)
    expected = cross_entropy(inner_gpt2(gpt2), ids, targets)
    assert expected > 2 * -math.log(1e-7)
    assert gpt2.evaluate(ids, targets, verbose=0) == pytest.approx(expected, rel=1e-4)


def test_fit_learns_a_rule():
    keras.utils.set_random_seed(0)
    gpt2 = functional_gpt2()
    gpt2.optimizer.learning_rate = 0.01
    ids = random_ids(0, 64, MAX_LENGTH)
    history = gpt2.fit(ids, (ids + 7) % VOCAB_SIZE, batch_size=8, epochs=12, verbose=0)
    losses = history.history["loss"]
    assert losses[0] > 3
    assert losses[-1] < 1


def test_a_functional_model_takes_sequences_of_any_length_up_to_the_maximum():
    inputs = keras.Input(shape=(None,), dtype="int32")
    gpt2 = random_gpt2()
    model = keras.Model(inputs, gpt2(inputs))
    for length in (1, 5, MAX_LENGTH):
        ids_BT = random_ids(length, 2, length)
        expected = [softmax(NumpyGPT2(gpt2).logits(ids_T)) for ids_T in ids_BT]
        np.testing.assert_allclose(model(ids_BT), expected, rtol=1e-3, atol=1e-7)


def test_a_saved_model_comes_back(tmp_path):
    model = random_gpt2(3, dropout=0.25, layer_norm_epsilon=1e-5)
    model.save(tmp_path / "gpt2.keras")
    loaded = keras.models.load_model(tmp_path / "gpt2.keras")
    assert type(loaded) is GPT2
    assert loaded.config == GPT2Config(**(SMALL | {"dropout": 0.25, "layer_norm_epsilon": 1e-5}))
    ids_BT = random_ids(0, 2, MAX_LENGTH)
    assert (np.array(loaded(ids_BT)) == np.array(model(ids_BT))).all()


def test_a_saved_functional_model_comes_back_and_goes_on_learning(tmp_path):
    gpt2 = functional_gpt2()
    ids, targets = random_ids(0, 8, MAX_LENGTH), random_ids(1, 8, MAX_LENGTH)
    gpt2.fit(ids, targets, verbose=0)
    gpt2.save(tmp_path / "gpt2.keras")
    loaded = keras.models.load_model(tmp_path / "gpt2.keras")
    assert (loaded.predict(ids, verbose=0) == gpt2.predict(ids, verbose=0)).all()
    assert loaded.optimizer.iterations.numpy() == 1
    before = loaded.evaluate(ids, targets, verbose=0)
    loaded.fit(ids, targets, epochs=5, verbose=0)
    assert loaded.evaluate(ids, targets, verbose=0) < before


def test_the_models_configuration_keeps_its_sizes_and_its_precision():
    sizes = SMALL | {"dropout": 0.25, "layer_norm_epsilon": 1e-5}
    model = GPT2(**sizes, dtype="mixed_bfloat16", name="reader")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model))
    assert {name: again.get_config()[name] for name in sizes} == sizes
    assert again.dtype_policy.name == "mixed_bfloat16"
    assert again.name == "reader"


def test_sizes_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="num_heads=5 and embedding_dim=12"):
        GPT2(**(SMALL | {"num_heads": 5}))
