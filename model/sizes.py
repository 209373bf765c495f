"""The sizes in which OpenAI published GPT-2, by name."""

from model.config import GPT2Config

# Radford et al. 2019, table 2, by the names that Hugging Face gave them. The paper's first line has
# 117M for what is 124M. The weights were trained with an epsilon of 1e-5 (openai/gpt-2).
SIZES = {
    "gpt2": GPT2Config(
        embedding_dim=768,
        num_layers=12,
        num_heads=12,
        feed_forward_dim=3072,
        layer_norm_epsilon=1e-5,
    ),
    "gpt2-medium": GPT2Config(
        embedding_dim=1024,
        num_layers=24,
        num_heads=16,
        feed_forward_dim=4096,
        layer_norm_epsilon=1e-5,
    ),
    "gpt2-large": GPT2Config(
        embedding_dim=1280,
        num_layers=36,
        num_heads=20,
        feed_forward_dim=5120,
        layer_norm_epsilon=1e-5,
    ),
    "gpt2-xl": GPT2Config(
        embedding_dim=1600,
        num_layers=48,
        num_heads=25,
        feed_forward_dim=6400,
        layer_norm_epsilon=1e-5,
    ),
}

_COMPARED = (
    "vocab_size",
    "max_length",
    "embedding_dim",
    "num_layers",
    "num_heads",
    "feed_forward_dim",
)


def check_size(config: GPT2Config, name: str) -> None:
    """Does nothing if `config` has the size of that name.

    Raises:
        ValueError: There is no such name, or the sizes differ; the message has each that does.
    """
    if name not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {name!r}")
    differing = [
        f"{field} must be {getattr(SIZES[name], field)}, got {getattr(config, field)}"
        for field in _COMPARED
        if getattr(config, field) != getattr(SIZES[name], field)
    ]
    if differing:
        raise ValueError(f"the model is no {name}: {'; '.join(differing)}")
