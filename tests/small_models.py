"""Small models for tests."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from model.gpt2 import GPT2

SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "max_length": 12,
    "embedding_dim": 12,
    "num_layers": 2,
    "num_heads": 3,
    "feed_forward_dim": 20,
    "dropout": 0.0,
}


def randomize(layer: keras.Layer, seed: int, scale: float = 0.3) -> None:
    """Draws every weight, biases and scales too, so that none can be left out unnoticed."""
    generator = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        center = 1.0 if variable.name == "gamma" else 0.0
        variable.assign(center + scale * generator.standard_normal(variable.shape))


def random_gpt2(seed: int = 0, scale: float = 0.3, **sizes: Any) -> GPT2:
    """A built GPT-2 of the sizes in SMALL, but for those given, with all weights drawn."""
    model = GPT2(**(SMALL | sizes))
    model.build((None, model.config.max_length))
    randomize(model, seed, scale)
    return model


def reciting_gpt2(text: Sequence[int], vocab_size: int, sharpness: float = 1.0) -> GPT2:
    """A GPT-2 that says `text` by heart: after t + 1 tokens, whatever they are, it expects text[t].

    The blocks add nothing, and the position embedding outweighs the token embedding, so that a
    hidden state points along the embedding of the token that is to come. At sharpness 1 the
    expected token is a few nats likelier than the others.
    """
    said = sorted(set(text))
    model = GPT2(
        vocab_size=vocab_size,
        max_length=len(text),
        embedding_dim=len(said),
        num_layers=1,
        num_heads=1,
        feed_forward_dim=1,
        dropout=0.0,
    )
    model.build((None, len(text)))
    for variable in model.trainable_variables:
        variable.assign(np.full(variable.shape, 1.0 if variable.name == "gamma" else 0.0))
    # One direction for each token, as far apart as can be, and none along the mean, which
    # normalisation takes out.
    directions = np.eye(len(said)) - 1 / len(said)
    embedding = np.zeros((vocab_size, len(said)))
    embedding[said] = directions * sharpness
    model.token_embedding.embeddings.assign(embedding)
    model.position_embedding.embeddings.assign(
        1000 * sharpness * directions[[said.index(token) for token in text]]
    )
    return model
