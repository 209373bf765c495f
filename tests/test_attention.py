"""model/attention.py against NumPy."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from model import MultiHeadSelfAttention
from model.dot_product_attention import attention_bias
from tests import numpy_gpt2
from tests.small_models import randomize


def built(seed: int = 0, **arguments) -> MultiHeadSelfAttention:
    layer = MultiHeadSelfAttention(**({"embedding_dim": 12, "num_heads": 3} | arguments))
    layer.build((None, None, layer.embedding_dim))
    randomize(layer, seed)
    return layer


@pytest.mark.parametrize("num_heads", [1, 2, 3, 12])
def test_attention_equals_numpys(num_heads):
    layer = built(seed=num_heads, num_heads=num_heads)
    x_BTD = np.random.default_rng(1).standard_normal((2, 7, 12))
    weights = numpy_gpt2.attention_weights(layer)
    expected = [numpy_gpt2.attention(x_TD, weights, num_heads) for x_TD in x_BTD]
    np.testing.assert_allclose(layer(x_BTD), expected, rtol=1e-5, atol=1e-6)


def test_the_attention_bias_shuts_out_later_positions_alone():
    assert attention_bias(0, 3).numpy().tolist() == [
        [0.0, -1e9, -1e9],
        [0.0, 0.0, -1e9],
        [0.0, 0.0, 0.0],
    ]


def test_the_attention_bias_shuts_out_other_documents_too():
    no = -1e9
    assert attention_bias(0, 4, tf.constant([[0, 0, 1, 1], [3, 3, 3, 3]])).numpy().tolist() == [
        [[[0.0, no, no, no], [0.0, 0.0, no, no], [no, no, 0.0, no], [no, no, 0.0, 0.0]]],
        [[[0.0, no, no, no], [0.0, 0.0, no, no], [0.0, 0.0, 0.0, no], [0.0, 0.0, 0.0, 0.0]]],
    ]


def test_attention_within_documents_equals_numpys_on_each_alone():
    layer = built()
    x_BTD = np.random.default_rng(1).standard_normal((2, 7, 12))
    weights = numpy_gpt2.attention_weights(layer)
    first = [numpy_gpt2.attention(part, weights, 3) for part in np.split(x_BTD[0], [3, 4])]
    second = [numpy_gpt2.attention(part, weights, 3) for part in np.split(x_BTD[1], [5])]
    documents_BT = tf.constant([[0, 0, 0, 1, 2, 2, 2], [4, 4, 4, 4, 4, 5, 5]])
    expected = [np.concatenate(first), np.concatenate(second)]
    np.testing.assert_allclose(layer(x_BTD, documents_BT), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_in_16_bits_the_softmax_is_made_in_float32_and_all_products_are_not(dtype):
    layer = built(dtype=dtype)
    graph = tf.function(layer).get_concrete_function(tf.TensorSpec([2, 7, 12])).graph
    of_kind = {
        kind: [op.outputs[0].dtype for op in graph.get_operations() if op.type in kinds]
        for kind, kinds in {
            "softmax": ["Softmax"],
            "product": ["MatMul", "BatchMatMulV2", "BatchMatMulV3"],
        }.items()
    }
    assert of_kind["softmax"] == [tf.float32]
    assert of_kind["product"] == [layer.compute_dtype] * 4


def test_equal_scores_make_the_mean_of_what_is_visible():
    layer = MultiHeadSelfAttention(2, 1)
    layer.build((None, None, 2))
    # Queries and keys are zero; values and outputs are the input itself.
    kernel = np.concatenate([np.zeros((2, 4)), np.eye(2)], axis=1)
    layer.query_key_value.kernel.assign(kernel)
    layer.output_projection.kernel.assign(np.eye(2))
    x_BTD = np.array([[[2.0, 4.0], [4.0, 0.0], [0.0, 2.0]]])
    expected = [[[2.0, 4.0], [3.0, 2.0], [2.0, 2.0]]]
    np.testing.assert_allclose(layer(x_BTD), expected, rtol=1e-6)


def test_dropout_takes_outputs_away_in_training_alone():
    layer = built(dropout=0.5)
    x_BTD = np.random.default_rng(0).standard_normal((4, 50, 12))
    quiet, loud = np.array(layer(x_BTD)), np.array(layer(x_BTD, training=True))
    assert (quiet != 0).all()
    assert 0.4 < (loud == 0).mean() < 0.6


def test_dropout_takes_attention_weights_away_too():
    keras.utils.set_random_seed(0)
    layer = MultiHeadSelfAttention(1, 1, dropout=0.5)
    layer.build((None, None, 1))
    layer.query_key_value.kernel.assign([[0.0, 0.0, 1.0]])
    layer.output_projection.kernel.assign([[1.0]])
    # Two visible ones of weight 1/2: each is dropped or doubled, then their sum is.
    output = np.array(layer(np.ones((2000, 2, 1)), training=True))[:, 1, 0]
    values, counts = np.unique(output.round(5), return_counts=True)  # a half may be 0.49999997
    assert values.tolist() == [0.0, 2.0, 4.0]
    np.testing.assert_allclose(counts / 2000, [5 / 8, 2 / 8, 1 / 8], atol=0.04)


def test_heads_that_do_not_divide_the_width_are_an_error():
    message = "num_heads must divide embedding_dim, got num_heads=3 and embedding_dim=10"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MultiHeadSelfAttention(embedding_dim=10, num_heads=3)


def test_the_layer_comes_back_from_its_configuration():
    layer = MultiHeadSelfAttention(12, 3, 0.25, 0.005, name="mixer", dtype="mixed_bfloat16")
    config = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    ).get_config()
    config["dtype"] = config["dtype"]["config"]["name"]
    assert config == {
        "name": "mixer",
        "trainable": True,
        "dtype": "mixed_bfloat16",
        "embedding_dim": 12,
        "num_heads": 3,
        "dropout": 0.25,
        "output_stddev": 0.005,
    }
