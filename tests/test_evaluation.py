"""components/evaluation.py: which candidate TFMA validates, so that the Evaluator blesses it."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import tensorflow_model_analysis as tfma

from components.evaluation import eval_config
from tests.made_models import Document, evaluate

# Token 0 makes up three quarters of the split; the source "small" has token 1 alone.
DOCUMENTS = [Document([0] * 6, 10, "large", "new"), Document([1] * 2, 5, "small", "old")]


def nll(perplexity_large: float, perplexity_small: float) -> list[float]:
    """A model with these perplexities for the two sources, and parts."""
    return [math.log(perplexity_large), math.log(perplexity_small)]


def validate(
    folder: Path,
    candidate: Sequence[float],
    baseline: Sequence[float],
    max_perplexity: float = 1000.0,
    min_improvement: float = 0.0,
    max_forgetting: float | None = None,
    documents: Sequence[Document] = DOCUMENTS,
) -> tuple[bool, list[str]]:
    """Whether the candidate passes, and the names of the metrics that failed, once a failure."""
    config = eval_config(max_perplexity, min_improvement, max_forgetting)
    result = tfma.load_validation_result(
        evaluate(folder, config, documents, candidate=candidate, baseline=baseline)
    )
    failures = [
        " ".join(
            [
                f"{failure.metric_key.name} {'change' if failure.metric_key.is_diff else 'bound'}",
                *(f"on {key.bytes_value.decode()}" for key in of_slice.slice_key.single_slice_keys),
            ]
        )
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


# Of the new data, three quarters of all tokens, the candidate knows more than production.
BETTER_AS_A_WHOLE = 80


@pytest.mark.parametrize(
    ("on_old", "expected"),
    [(104.9, (True, [])), (105.1, (False, ["perplexity change on old"]))],
)
def test_a_better_model_that_forgot_more_of_the_old_data_than_it_may_is_blocked(
    tmp_path, on_old, expected
):
    candidate, baseline = nll(BETTER_AS_A_WHOLE, on_old), nll(100, 100)
    assert validate(tmp_path, candidate, baseline, max_forgetting=0.05) == expected


def test_with_no_forgetting_allowed_a_model_that_stays_the_same_on_old_data_passes(tmp_path):
    candidate, baseline = nll(BETTER_AS_A_WHOLE, 100), nll(100, 100)
    assert validate(tmp_path, candidate, baseline, max_forgetting=0.0) == (True, [])


def test_a_model_that_is_better_by_its_old_data_alone_is_blocked(tmp_path):
    candidate, baseline = nll(105.1, 20), nll(100, 100)
    assert validate(tmp_path, candidate, baseline, max_forgetting=0.05) == (
        False,
        ["perplexity change on new"],
    )


def test_a_model_passes_where_nothing_is_old_yet(tmp_path):
    documents = [document._replace(part="new") for document in DOCUMENTS]
    candidate, baseline = nll(BETTER_AS_A_WHOLE, 150), nll(100, 100)
    assert validate(
        tmp_path, candidate, baseline, max_forgetting=0.0, documents=documents
    ) == (True, [])  # fmt: skip


def test_a_model_that_keeps_all_its_parts_but_does_not_improve_enough_is_blocked(tmp_path):
    candidate, baseline = nll(100.5, 100.5), nll(100, 100)
    assert validate(tmp_path, candidate, baseline, max_forgetting=0.01) == (
        False,
        ["perplexity change"],
    )
