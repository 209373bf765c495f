"""GPT-2 in Keras 3 on TensorFlow: the model, its training, scoring, generation and export."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.attention import MultiHeadSelfAttention
    from model.config import GPT2Config
    from model.feed_forward import FeedForwardNetwork
    from model.gpt2 import GPT2
    from model.transformer_block import TransformerBlock

__all__ = [
    "GPT2",
    "FeedForwardNetwork",
    "GPT2Config",
    "MultiHeadSelfAttention",
    "TransformerBlock",
]

_MODULES = {
    "GPT2": "model.gpt2",
    "FeedForwardNetwork": "model.feed_forward",
    "GPT2Config": "model.config",
    "MultiHeadSelfAttention": "model.attention",
    "TransformerBlock": "model.transformer_block",
}


def __getattr__(name: str) -> Any:
    """Imports a class when it is first asked for (PEP 562).

    TensorFlow takes seconds to import, and the configuration and the tokeniser, which the command
    line reads first, need none of it.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
