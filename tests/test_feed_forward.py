"""model/feed_forward.py against NumPy."""

import keras
import numpy as np

from model import FeedForwardNetwork
from tests import numpy_gpt2
from tests.small_models import randomize


def test_the_network_equals_numpys():
    layer = FeedForwardNetwork(embedding_dim=6, feed_forward_dim=10)
    layer.build((None, None, 6))
    randomize(layer, seed=0, scale=1.0)
    x_BTD = np.random.default_rng(1).standard_normal((2, 5, 6))
    expected = numpy_gpt2.feed_forward(x_BTD, numpy_gpt2.feed_forward_weights(layer))
    np.testing.assert_allclose(layer(x_BTD), expected, rtol=1e-5, atol=1e-5)


def test_gelu_is_the_tanh_form():
    layer = FeedForwardNetwork(embedding_dim=1, feed_forward_dim=1)
    layer.build((None, None, 1))
    layer.expansion.kernel.assign([[1.0]])
    layer.output_projection.kernel.assign([[1.0]])
    # Hendrycks & Gimpel's formula by hand; the exact GELU of -2 and 2 is -0.0455003 and 1.9544997.
    expected = [-0.04540231, 0.0, 1.95459769]
    np.testing.assert_allclose(layer(np.array([[[-2.0], [0.0], [2.0]]]))[0, :, 0], expected, 1e-5)


def test_dropout_takes_or_doubles_outputs_in_training_alone():
    layer = FeedForwardNetwork(embedding_dim=6, feed_forward_dim=10, dropout=0.5)
    layer.build((None, None, 6))
    randomize(layer, seed=0)
    x_BTD = np.random.default_rng(1).standard_normal((4, 100, 6))
    expected = numpy_gpt2.feed_forward(x_BTD, numpy_gpt2.feed_forward_weights(layer))
    np.testing.assert_allclose(layer(x_BTD), expected, rtol=1e-4, atol=1e-5)
    loud = np.array(layer(x_BTD, training=True))
    dropped = loud == 0
    assert 0.4 < dropped.mean() < 0.6
    np.testing.assert_allclose(loud[~dropped], 2 * expected[~dropped], rtol=1e-4, atol=1e-5)


def test_the_layer_comes_back_from_its_configuration():
    layer = FeedForwardNetwork(6, 10, 0.25, 0.005, name="network", dtype="mixed_bfloat16")
    config = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    ).get_config()
    config["dtype"] = config["dtype"]["config"]["name"]
    assert config == {
        "name": "network",
        "trainable": True,
        "dtype": "mixed_bfloat16",
        "embedding_dim": 6,
        "feed_forward_dim": 10,
        "dropout": 0.25,
        "output_stddev": 0.005,
    }
