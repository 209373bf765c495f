"""model/config.py: the sizes of a GPT-2 and the rules they keep."""

import dataclasses
import math
import re

import pytest

from model.config import GPT2Config

WHOLE_NUMBERS = (
    "vocab_size",
    "max_length",
    "embedding_dim",
    "num_layers",
    "num_heads",
    "feed_forward_dim",
)


def test_the_defaults_are_those_of_gpt2_small():
    assert GPT2Config().to_dict() == {
        "vocab_size": 50257,
        "max_length": 1024,
        "embedding_dim": 768,
        "num_layers": 12,
        "num_heads": 12,
        "feed_forward_dim": 3072,
        "dropout": 0.1,
        "layer_norm_epsilon": 1e-6,
    }


@pytest.mark.parametrize("field", WHOLE_NUMBERS)
@pytest.mark.parametrize("value", [0, -1, True, 2.0, "8", None])
def test_a_size_that_is_no_whole_number_from_one_up_is_an_error(field, value):
    message = f"{field} must be a whole number >= 1, got {value!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GPT2Config(**{field: value})


@pytest.mark.parametrize("field", ["dropout", "layer_norm_epsilon"])
@pytest.mark.parametrize("value", [True, False, "0.1", None])
def test_a_share_that_is_no_number_is_an_error(field, value):
    message = f"{field} must be a number, got {value!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GPT2Config(**{field: value})


@pytest.mark.parametrize("dropout", [-0.1, 1, 1.5, math.nan])
def test_a_dropout_outside_zero_to_one_is_an_error(dropout):
    message = f"dropout must be in [0, 1), got {dropout!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GPT2Config(dropout=dropout)


@pytest.mark.parametrize("epsilon", [0, -1e-6, math.nan])
def test_an_epsilon_that_is_not_above_zero_is_an_error(epsilon):
    message = f"layer_norm_epsilon must be > 0, got {epsilon!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GPT2Config(layer_norm_epsilon=epsilon)


def test_heads_that_do_not_divide_the_width_are_an_error_with_both_numbers():
    message = "num_heads must divide embedding_dim, got num_heads=7 and embedding_dim=768"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GPT2Config(embedding_dim=768, num_heads=7)


def test_the_least_of_everything_is_allowed():
    GPT2Config(1, 1, 1, 1, 1, 1, dropout=0, layer_norm_epsilon=1e-30)


@pytest.mark.parametrize(("num_layers", "stddev"), [(2, 0.01), (8, 0.005), (50, 0.002)])
def test_residual_projections_begin_smaller_by_the_root_of_twice_the_layers(num_layers, stddev):
    assert GPT2Config(num_layers=num_layers).residual_stddev == pytest.approx(stddev, rel=1e-12)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GPT2Config().num_heads = 5  # type: ignore[misc]
