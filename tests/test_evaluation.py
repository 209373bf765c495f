"""components/evaluation.py: which candidate TFMA validates, so that the Evaluator blesses it."""

import math
from collections.abc import Sequence
from pathlib import Path

import tensorflow_model_analysis as tfma

from components.evaluation import eval_config
from tests.made_models import Document, evaluate

# Token 0 makes up three quarters of the split; the source "small" has token 1 alone.
DOCUMENTS = [Document([0] * 6, 10, "large"), Document([1] * 2, 5, "small")]


def nll(perplexity_large: float, perplexity_small: float) -> list[float]:
    """A model with these perplexities for the two sources."""
    return [math.log(perplexity_large), math.log(perplexity_small)]


def validate(
    folder: Path,
    candidate: Sequence[float],
    baseline: Sequence[float],
    max_perplexity: float = 1000.0,
    min_improvement: float = 0.0,
) -> tuple[bool, list[str]]:
    """Whether the candidate passes, and the names of the metrics that failed, once a failure."""
    config = eval_config(max_perplexity, min_improvement)
    result = tfma.load_validation_result(
        evaluate(folder, config, DOCUMENTS, candidate=candidate, baseline=baseline)
    )
    failures = [
        f"{failure.metric_key.name} change" if failure.metric_key.is_diff else "perplexity bound"
        for of_slice in result.metric_validations_per_slice
        for failure in of_slice.failures
    ]
    return result.validation_ok, failures


def test_a_better_model_above_the_absolute_bound_is_blocked(tmp_path):
    candidate, baseline = nll(100, 100), nll(400, 400)
    assert validate(tmp_path, candidate, baseline, max_perplexity=99) == (
        False,
        ["perplexity bound"],
    )


def test_a_model_below_the_bound_that_does_not_improve_enough_is_blocked(tmp_path):
    # 5.0% better, where 5.1% are asked for.
    candidate, baseline = nll(95, 95), nll(100, 100)
    assert validate(tmp_path, candidate, baseline, min_improvement=0.051) == (
        False,
        ["perplexity change"],
    )


def test_a_model_that_improves_just_enough_on_the_whole_passes_with_one_source_worse(tmp_path):
    # 100 -> 100 * 0.7 ** (6 / 8) * 2 ** (2 / 8) = 91.0: 9.0% better, the small source twice as bad.
    candidate, baseline = nll(70, 200), nll(100, 100)
    assert validate(tmp_path, candidate, baseline, max_perplexity=91.1, min_improvement=0.089) == (
        True,
        [],
    )


def test_an_equal_model_passes_when_no_improvement_is_asked_for(tmp_path):
    assert validate(tmp_path, nll(70, 200), nll(70, 200)) == (True, [])


def test_a_slightly_worse_model_is_blocked_when_no_improvement_is_asked_for(tmp_path):
    assert validate(tmp_path, nll(100.001, 100), nll(100, 100)) == (False, ["perplexity change"])


def test_a_model_whose_perplexity_is_not_a_number_is_blocked_on_both_counts(tmp_path):
    assert validate(tmp_path, [math.nan, 1.0], nll(100, 100), max_perplexity=1e300) == (
        False,
        ["perplexity bound", "perplexity change"],
    )
