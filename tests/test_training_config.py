"""model/training_config.py: the rules that a training run's settings keep."""

import math
import re
from typing import Any

import pytest

from model.training_config import StrategyConfig, TrainingConfig

BAD_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"steps": 0}, "steps must be >= 1, got 0"),
    ({"global_batch_size": 0}, "global_batch_size must be >= 1, got 0"),
    ({"eval_every_steps": 0}, "eval_every_steps must be >= 1, got 0"),
    ({"eval_batches": 0}, "eval_batches must be >= 1, got 0"),
    ({"checkpoint_every_steps": -5}, "checkpoint_every_steps must be >= 1, got -5"),
    ({"keep_checkpoints": 0}, "keep_checkpoints must be >= 1, got 0"),
    ({"loss_chunk_size": 0}, "loss_chunk_size must be >= 1, got 0"),
    ({"learning_rate": 0}, "learning_rate must be > 0 and finite, got 0"),
    ({"learning_rate": math.nan}, "learning_rate must be > 0 and finite, got nan"),
    ({"learning_rate": math.inf}, "learning_rate must be > 0 and finite, got inf"),
    ({"gradient_clip_norm": 0.0}, "gradient_clip_norm must be > 0, got 0.0"),
    ({"weight_decay": -0.1}, "weight_decay must be >= 0, got -0.1"),
    ({"seed": -1}, "seed must be in [0, 2**32), got -1"),
    ({"seed": 2**32}, "seed must be in [0, 2**32), got 4294967296"),
    ({"beta_1": 1.0}, "beta_1 must be in [0, 1), got 1.0"),
    ({"beta_2": -0.5}, "beta_2 must be in [0, 1), got -0.5"),
    (
        {"final_learning_rate_share": 1.5},
        "final_learning_rate_share must be in [0, 1], got 1.5",
    ),
    ({"warmup_steps": -1}, "warmup_steps must be in [0, steps=1000), got -1"),
    ({"warmup_steps": 1000}, "warmup_steps must be in [0, steps=1000), got 1000"),
    (
        {"global_batch_size": 3, "strategy": StrategyConfig("mirrored", 2)},
        "global_batch_size must be a multiple of num_devices * accumulation_steps = 2, got 3",
    ),
    (
        {
            "global_batch_size": 8,
            "accumulation_steps": 3,
            "strategy": StrategyConfig("mirrored", 2),
        },
        "global_batch_size must be a multiple of num_devices * accumulation_steps = 6, got 8",
    ),
    ({"accumulation_steps": 0}, "accumulation_steps must be >= 1, got 0"),
    ({"vocab_multiple": 0}, "vocab_multiple must be >= 1, got 0"),
    ({"skip_spikes": 0.0}, "skip_spikes must be > 1, got 0.0"),
    ({"skip_spikes": math.nan}, "skip_spikes must be > 1, got nan"),
    ({"average_decay": 0.0}, "average_decay must be in (0, 1), got 0.0"),
    ({"average_decay": 1.0}, "average_decay must be in (0, 1), got 1.0"),
    ({"average_decay": math.nan}, "average_decay must be in (0, 1), got nan"),
]


@pytest.mark.parametrize(("values", "message"), BAD_VALUES)
def test_a_value_out_of_its_range_is_an_error_with_name_value_and_rule(values, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TrainingConfig(**({"steps": 1000} | values))


def test_the_bounds_themselves_are_allowed():
    TrainingConfig(
        steps=1,
        global_batch_size=1,
        warmup_steps=0,
        weight_decay=0,
        beta_1=0,
        beta_2=0,
        final_learning_rate_share=0,
        seed=0,
    )
    TrainingConfig(steps=101, warmup_steps=100, final_learning_rate_share=1, seed=2**32 - 1)
    TrainingConfig(
        steps=101, global_batch_size=6, accumulation_steps=6, gradient_clip_norm=math.inf
    )


def test_what_gpt2_was_trained_without_is_off_by_default():
    config = TrainingConfig(steps=101)
    assert config.accumulation_steps == config.vocab_multiple == 1
    assert config.skip_spikes is config.average_decay is None
    assert config.precision == "float32"
    assert config.document_mask is False
    assert config.recompute == "none"


@pytest.mark.parametrize("recompute", [True, False, "blocks"])
def test_what_is_recomputed_is_known(recompute):
    rule = r"one of \('none', 'attention', 'block'\)"
    with pytest.raises(ValueError, match=f"^recompute must be {rule}, got {recompute!r}$"):
        TrainingConfig(steps=101, recompute=recompute)


def test_a_strategy_without_devices_is_an_error():
    with pytest.raises(ValueError, match=r"^num_devices must be >= 1, got 0$"):
        StrategyConfig("mirrored", 0)


@pytest.mark.parametrize("name", ["one_device", "multi_worker"])
def test_only_the_mirrored_strategy_takes_devices(name):
    message = f"num_devices is for strategy 'mirrored' only, got name='{name}' with num_devices=2"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        StrategyConfig(name, 2)
