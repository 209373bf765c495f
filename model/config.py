"""The sizes of a GPT-2."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class GPT2Config:
    """Holds sizes that fit together; the defaults are GPT-2 small (124M parameters).

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", table 2.

    Args:
        vocab_size: Number of token ids.
        max_length: The context: the most tokens that the model sees at once.
        embedding_dim: Width of the residual stream.
        num_layers: Number of transformer blocks.
        num_heads: Attention heads in each block; must divide `embedding_dim`.
        feed_forward_dim: Width of the hidden layer in each block's feed-forward network.
        dropout: Share of activations dropped in training: embeddings, attention, residuals.
        layer_norm_epsilon: Added to the variance in layer normalisation. Ours is 1e-6;
            OpenAI's weights were trained with 1e-5.

    Raises:
        ValueError: A size is out of its range, or `num_heads` does not divide `embedding_dim`.
    """

    vocab_size: int = 50257
    max_length: int = 1024
    embedding_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    feed_forward_dim: int = 3072
    dropout: float = 0.1
    layer_norm_epsilon: float = 1e-6

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value: Any = getattr(self, field.name)
            if isinstance(field.default, int):
                if type(value) is not int or value < 1:
                    raise ValueError(f"{field.name} must be a whole number >= 1, got {value!r}")
            elif type(value) not in (int, float):
                raise ValueError(f"{field.name} must be a number, got {value!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout!r}")
        if not self.layer_norm_epsilon > 0:
            raise ValueError(f"layer_norm_epsilon must be > 0, got {self.layer_norm_epsilon!r}")
        check_heads(self.embedding_dim, self.num_heads)

    @property
    def residual_stddev(self) -> float:
        """Initial standard deviation of the two projections that write to the residual stream.

        Each block adds two terms to the stream, so the sum's variance would grow with
        2 * num_layers; GPT-2 divides their weights by its root (Radford et al. 2019, section 2.3).
        """
        return KERNEL_STDDEV / (2 * self.num_layers) ** 0.5

    def to_dict(self) -> dict[str, Any]:
        """Returns the sizes as the keyword arguments of `GPT2`."""
        return dataclasses.asdict(self)


def check_heads(embedding_dim: int, num_heads: int) -> None:
    """Raises ValueError unless `num_heads` divides `embedding_dim`."""
    if embedding_dim % num_heads:
        raise ValueError(
            f"num_heads must divide embedding_dim, got num_heads={num_heads} "
            f"and embedding_dim={embedding_dim}"
        )


# OpenAI's initialisation (openai/gpt-2, src/model.py): normal, with these standard deviations.
KERNEL_STDDEV = 0.02
TOKEN_STDDEV = 0.02
POSITION_STDDEV = 0.01
