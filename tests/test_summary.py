"""pipeline/summary.py: which spans, where training started, why no blessing, in words.

The rest is in tests/e2e.
"""

import math
from typing import Any

import pytest

from components.evaluation import BASELINE, CANDIDATE, eval_config
from pipeline.summary import Summary, perplexity_by, read_failures, read_metrics
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


def test_the_data_that_a_candidate_got_worse_on_are_told(tmp_path):
    documents = [Document([0, 0, 0], 4, "play", "new"), Document([1], 2, "poem", "old")]
    evaluation = evaluate(
        tmp_path,
        eval_config(90, 0, max_forgetting=0.05),
        documents,
        [math.log(60), math.log(126)],
        [math.log(100), math.log(110)],
    )
    assert read_failures(evaluation) == [
        "perplexity on old data is 126.0, needed 115.5 or less against the baseline's 110.0",
    ]
    assert perplexity_by("part", read_metrics(evaluation, CANDIDATE)) == {
        "new": pytest.approx(60),
        "old": pytest.approx(126),
    }
    assert perplexity_by("source", read_metrics(evaluation, BASELINE)) == {
        "play": pytest.approx(100),
        "poem": pytest.approx(110),
    }


def test_failures_on_the_whole_are_told_before_those_on_parts(tmp_path):
    documents = [Document([0, 0, 0], 4, "play", "new"), Document([1], 2, "poem", "old")]
    evaluation = evaluate(
        tmp_path,
        eval_config(1000, 0, max_forgetting=0),
        documents,
        [math.log(200), math.log(300)],
        [math.log(100), math.log(100)],
    )
    assert [sentence.partition(" is ")[0] for sentence in read_failures(evaluation)] == [
        "perplexity", "perplexity on new data", "perplexity on old data"
    ]  # fmt: skip


SUMMARY: dict[str, Any] = {
    "pipeline": "mine",
    "documents": 10,
    "refused": 0,
    "left_out": 0,
    "span": None,
    "earlier_spans": [],
    "train_tokens": 900,
    "eval_tokens": 100,
    "parameters": 1234,
    "start": "scratch",
    "steps": 1500,
    "model_step": 1500,
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
    "perplexity_by_part": {},
    "baseline_perplexity_by_part": {},
    "seconds": {},
    "cached": [],
}


@pytest.mark.parametrize("start", ["scratch", "production version 7", "weights my/gpt2"])
def test_where_training_started_stands_beside_its_steps(start):
    lines = Summary(**SUMMARY | {"start": start}).describe().splitlines()
    assert f"model          1,234 parameters, 1,500 steps from {start}" in lines


def test_a_model_that_is_not_of_the_last_step_is_told_with_its_own():
    lines = Summary(**SUMMARY | {"model_step": 1250}).describe().splitlines()
    told = "1,234 parameters, 1,500 steps (the best of them, 1,250) from scratch"
    assert f"model          {told}" in lines


def test_a_model_that_cannot_be_served_is_told_with_the_reasons():
    reasons = [
        "a prompt: expected OK, got INTERNAL: no",
        "encode and decode: expected 'a', got b''",
    ]
    told = Summary(**SUMMARY | {"servable": False, "not_servable_because": reasons}).describe()
    assert f"\nservable       no: {'; '.join(reasons)}\n" in told
    assert "servable" not in Summary(**SUMMARY).describe()


def test_with_spans_each_part_is_told_with_the_model_in_production():
    of_spans = {
        "span": 9,
        "earlier_spans": [1, 4, 8],
        "left_out": 1200,
        "perplexity_by_part": {"new": 80.0, "old": 95.04},
    }
    lines = Summary(**SUMMARY | of_spans).describe().splitlines()
    assert lines[:2] == [
        "span           9, evaluated on 1, 4, 8 too",
        "documents      10 kept, 0 records refused, 1,200 of earlier spans left out",
    ]
    whole = lines.index("perplexity     90.0, unigram model 600.0")
    assert lines[whole + 1 : whole + 3] == ["  on new data  80.0", "  on old data  95.0"]

    production = {"baseline_perplexity_by_part": {"new": 100.0, "old": 94.0}}
    lines = Summary(**SUMMARY | of_spans | production).describe().splitlines()
    assert "  on new data  80.0, in production 100.0" in lines
    assert "  on old data  95.0, in production 94.0" in lines


def test_the_first_span_is_told_and_has_no_parts():
    told = Summary(**SUMMARY | {"span": 0, "perplexity_by_part": {"new": 90.0}}).describe()
    assert told.startswith("span           0\ndocuments      10 kept, 0 records refused\n")
    assert "data" not in told


def test_without_spans_none_are_told():
    told = Summary(**SUMMARY).describe()
    assert told.startswith("documents      10 kept, 0 records refused\n")
    assert "span" not in told
