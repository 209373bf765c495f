"""pipeline/summary.py: where training started, and why a candidate was not blessed, in words.

The rest is in tests/e2e.
"""

import math
from typing import Any

import pytest

from components.evaluation import BASELINE, CANDIDATE, eval_config
from pipeline.summary import Summary, read_failures, read_metrics
from tests.made_models import Document, evaluate

DOCUMENTS = [Document([0, 0, 0], 4, "play"), Document([0], 2, "poem")]


def test_each_threshold_that_was_missed_is_told_with_what_it_is_and_what_it_should_be(tmp_path):
    evaluation = evaluate(
        tmp_path, eval_config(90, 0.25), DOCUMENTS, [math.log(100)], [math.log(120)]
    )
    assert read_failures(evaluation) == [
        "perplexity is 100.0, needed 90 or less",
        "perplexity is 100.0, needed 90.0 or less against the baseline's 120.0",
    ]


def test_a_candidate_that_diverged_is_told_too(tmp_path):
    evaluation = evaluate(tmp_path, eval_config(90, 0), DOCUMENTS, [1000.0], [math.log(120)])
    assert read_failures(evaluation) == [
        "perplexity is inf, needed 90 or less",
        "perplexity is inf, needed 120.0 or less against the baseline's 120.0",
    ]
    of_poems = (("source", "poem"),)
    assert read_metrics(evaluation, CANDIDATE)[of_poems]["perplexity"] == math.inf
    assert read_metrics(evaluation, BASELINE)[of_poems]["perplexity"] == pytest.approx(120)


SUMMARY: dict[str, Any] = {
    "pipeline": "mine",
    "documents": 10,
    "refused": 0,
    "train_tokens": 900,
    "eval_tokens": 100,
    "parameters": 1234,
    "start": "scratch",
    "steps": 1500,
    "train_loss": 4.5,
    "eval_perplexity": 90.0,
    "eval_bits_per_byte": 2.0,
    "unigram_perplexity": 600.0,
    "unigram_bits_per_byte": 3.0,
    "baseline_perplexity": None,
    "baseline_bits_per_byte": None,
    "baseline_version": None,
    "blessed": True,
    "not_blessed_because": [],
    "servable": True,
    "not_servable_because": [],
    "pushed_path": None,
    "ignored_files": [],
    "perplexity_by_source": {},
    "seconds": {},
    "cached": [],
}


@pytest.mark.parametrize("start", ["scratch", "production version 7", "weights my/gpt2"])
def test_where_training_started_stands_beside_its_steps(start):
    lines = Summary(**SUMMARY | {"start": start}).describe().splitlines()
    assert f"model          1,234 parameters, 1,500 steps from {start}" in lines


def test_a_model_that_cannot_be_served_is_told_with_the_reasons():
    reasons = [
        "a prompt: expected OK, got INTERNAL: no",
        "encode and decode: expected 'a', got b''",
    ]
    told = Summary(**SUMMARY | {"servable": False, "not_servable_because": reasons}).describe()
    assert f"\nservable       no: {'; '.join(reasons)}\n" in told
    assert "servable" not in Summary(**SUMMARY).describe()
