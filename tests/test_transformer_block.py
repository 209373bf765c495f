"""model/transformer_block.py against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from model import TransformerBlock
from tests import numpy_gpt2
from tests.small_models import randomize


@pytest.mark.parametrize("epsilon", [1e-6, 0.5])
def test_the_block_equals_numpys(epsilon):
    block = TransformerBlock(12, 3, 20, layer_norm_epsilon=epsilon)
    block.build((None, None, 12))
    randomize(block, seed=0)
    x_BTD = np.random.default_rng(1).standard_normal((2, 7, 12))
    weights = numpy_gpt2.block_weights(block)
    expected = [numpy_gpt2.block(x_TD, weights, 3, epsilon) for x_TD in x_BTD]
    np.testing.assert_allclose(block(x_BTD), expected, rtol=1e-5, atol=1e-5)


def test_the_block_sees_to_it_that_a_position_sees_its_own_document_alone():
    block = TransformerBlock(12, 3, 20)
    block.build((None, None, 12))
    randomize(block, seed=0)
    x_BTD = np.random.default_rng(1).standard_normal((1, 7, 12))
    weights = numpy_gpt2.block_weights(block)
    parts = np.split(x_BTD[0], [2, 3])
    expected = [numpy_gpt2.block(part, weights, 3, 1e-6) for part in parts]
    found = block(x_BTD, documents_BT=tf.constant([[0, 0, 1, 2, 2, 2, 2]]))
    np.testing.assert_allclose(found[0], np.concatenate(expected), rtol=1e-5, atol=1e-5)


def test_a_block_that_has_learnt_nothing_passes_the_stream_on():
    block = TransformerBlock(4, 2, 8)
    block.build((None, None, 4))
    for layer in (block.attention, block.feed_forward):
        layer.output_projection.kernel.assign(np.zeros(layer.output_projection.kernel.shape))
    x_BTD = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    assert (np.array(block(x_BTD)) == x_BTD).all()


def test_heads_that_do_not_divide_the_width_are_an_error():
    with pytest.raises(ValueError, match="num_heads=3 and embedding_dim=10"):
        TransformerBlock(embedding_dim=10, num_heads=3, feed_forward_dim=20)


def test_the_layer_comes_back_from_its_configuration():
    layer = TransformerBlock(12, 3, 20, 0.25, 1e-5, 0.005, name="first", dtype="mixed_bfloat16")
    config = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    ).get_config()
    config["dtype"] = config["dtype"]["config"]["name"]
    assert config == {
        "name": "first",
        "trainable": True,
        "dtype": "mixed_bfloat16",
        "embedding_dim": 12,
        "num_heads": 3,
        "feed_forward_dim": 20,
        "dropout": 0.25,
        "layer_norm_epsilon": 1e-5,
        "output_stddev": 0.005,
    }
