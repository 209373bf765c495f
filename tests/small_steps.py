"""Small training steps for tests, and their loss by NumPy."""

from typing import Any

import numpy as np

from model import GPT2Config
from model.strategy import make_strategy
from model.train_step import TrainStep
from model.training_config import StrategyConfig, TrainingConfig
from tests.numpy_gpt2 import NumpyGPT2
from tests.small_models import randomize

TINY = GPT2Config(
    vocab_size=11,
    max_length=5,
    embedding_dim=4,
    num_layers=1,
    num_heads=2,
    feed_forward_dim=6,
    dropout=0.0,
)


def step_of(
    model_config: GPT2Config = TINY,
    *,
    xla: bool = False,
    document_start: int = 0,
    **settings: Any,
) -> TrainStep:
    defaults = {"steps": 100, "warmup_steps": 0, "loss_chunk_size": 8, "gradient_clip_norm": 1e9}
    config = TrainingConfig(**(defaults | settings), xla=xla)
    return TrainStep(model_config, config, make_strategy(StrategyConfig()), document_start)


def random_step_of(*arguments: Any, **settings: Any) -> TrainStep:
    step = step_of(*arguments, **settings)
    randomize(step.model, seed=0, scale=0.5)
    return step


def batch_of(config: GPT2Config, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, config.vocab_size, (rows, config.max_length + 1)).astype(np.int32)
    return ids, np.ones((rows, config.max_length), np.float32)


def ragged_batch(config: GPT2Config, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of which each has another number of targets."""
    ids, weights = batch_of(config, rows, seed)
    for index in range(1, rows):
        weights[index, 1 + index % config.max_length :] = 0
    return ids, weights


def numpy_loss(model: NumpyGPT2, ids: np.ndarray, weights: np.ndarray) -> float:
    """Nats a target; what has weight 0 is none."""
    nll = [model.nll(row[:-1], row[1:]) for row in ids]
    return float((np.array(nll) * weights).sum() / weights.sum())


def first_moments(step: TrainStep) -> dict[str, np.ndarray]:
    """AdamW's running mean of each gradient, by the parameter's name."""
    variables = step.model.trainable_variables
    return {
        variable.path.split("/", 1)[1]: np.array(moment)
        for variable, moment in zip(variables, step.optimizer._momentums, strict=True)
    }
