"""components/baseline.py: production's newest version, or the unigram model before there is one."""

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
import tensorflow as tf
from tfx.types import standard_artifacts

from components.baseline import BaselineModel
from pipeline.config_file import load_config
from pipeline.graph import create_pipeline
from tests.made_models import Document, export, write_documents

VOCAB_SIZE = 50257
TRAIN = [Document([5, 5, 7, 50256], 9, "a"), Document([5, 50256], 3, "b")]
EVAL = [Document([5, 9, 50256], 8, "a"), Document([7, 50256], 2, "b")]


def unigram_nll(token: int) -> float:
    """-log p of a token by the train split's counts with one added to each, in plain Python."""
    counts = Counter(token for document in TRAIN for token in document.ids)
    return -math.log((counts[token] + 1) / (counts.total() + VOCAB_SIZE))


class Baseline(NamedTuple):
    report: dict
    model_folder: Path


@pytest.fixture
def serving_folder(tmp_path) -> Path:
    return tmp_path / "serving" / "model"


def choose_baseline(tmp_path: Path, serving_folder: Path, stride: int = 16) -> Baseline:
    """Runs the component as its launcher does."""
    examples = standard_artifacts.Examples()
    examples.uri = str(tmp_path / "examples")
    examples.split_names = json.dumps(["train", "eval"])
    # More than one file a split, as several workers write them.
    for split, documents in (("train", TRAIN), ("eval", EVAL)):
        for number, document in enumerate(documents):
            write_documents(
                tmp_path / "examples" / f"Split-{split}" / f"{number}.tfrecord", [document]
            )
    candidate, baseline = standard_artifacts.Model(), standard_artifacts.Model()
    candidate.uri = str(tmp_path / "candidate")
    baseline.uri = str(tmp_path / "baseline")
    Path(baseline.uri).mkdir()
    BaselineModel.EXECUTOR_SPEC.executor_class().Do(
        {"candidate": [candidate], "examples": [examples]},
        {"baseline": [baseline]},
        {"serving_folder": str(serving_folder), "stride": stride, "criteria": "{}"},
    )
    report = json.loads(Path(baseline.uri, "baseline.json").read_text())
    return Baseline(report, Path(baseline.uri, "Format-Serving"))


def evaluate(model_folder: Path, documents: list[Document]) -> dict[str, list]:
    """What the signature that the Evaluator calls answers."""
    signature = tf.saved_model.load(str(model_folder)).signatures["evaluate"]
    result = signature(examples=tf.constant([document.serialize() for document in documents]))
    return {name: tensor.numpy().tolist() for name, tensor in result.items()}


def test_before_anything_is_in_production_the_unigram_model_of_the_train_split_is_taken(
    tmp_path, serving_folder
):
    baseline = choose_baseline(tmp_path, serving_folder)
    assert baseline.report["version"] is None
    result = evaluate(baseline.model_folder, EVAL)
    expected = [sum(map(unigram_nll, document.ids)) for document in EVAL]
    assert result["sum_nll"] == pytest.approx(expected, rel=1e-12)
    assert result["num_tokens"] == [3, 2]
    assert result["num_bytes"] == [8, 2]


def test_an_empty_serving_folder_is_nothing_in_production(tmp_path, serving_folder):
    serving_folder.mkdir(parents=True)
    assert choose_baseline(tmp_path, serving_folder).report["version"] is None


def test_the_report_has_the_unigram_models_figures_on_the_eval_split(tmp_path, serving_folder):
    report = choose_baseline(tmp_path, serving_folder).report
    nll = sum(unigram_nll(token) for document in EVAL for token in document.ids)
    assert report["unigram_perplexity"] == pytest.approx(math.exp(nll / 5), rel=1e-12)
    assert report["unigram_bits_per_byte"] == pytest.approx(nll / math.log(2) / 10, rel=1e-12)


def test_of_several_versions_the_one_with_the_greatest_number_is_taken(tmp_path, serving_folder):
    for version in (2, 9, 10):  # of which "9" is the last in the alphabet
        export([float(version)] * 10, serving_folder / str(version))
    # Names that are no versions: a push under way, and what people leave behind.
    for name in (".staged-11", "staged-12", "13.bak", "-14", "old"):
        (serving_folder / name).mkdir()
    (serving_folder / "notes.txt").write_text("a note")

    baseline = choose_baseline(tmp_path, serving_folder)
    assert baseline.report["version"] == 10
    assert evaluate(baseline.model_folder, [Document([3, 4], 1, "a")])["sum_nll"] == [20.0]
    # The unigram model's figure is given all the same.
    assert baseline.report["unigram_perplexity"] > 1


def test_production_is_left_as_it_was(tmp_path, serving_folder):
    export([1.0] * 10, serving_folder / "1")
    before = {path: path.stat().st_mtime_ns for path in serving_folder.rglob("*")}
    choose_baseline(tmp_path, serving_folder)
    assert {path: path.stat().st_mtime_ns for path in serving_folder.rglob("*")} == before


def test_another_stride_than_productions_is_told_before_anything_runs(tmp_path):
    config = load_config("tiny", [f"output={tmp_path}", "evaluation.stride=16"])
    export([1.0] * 10, Path(config.serving_base, "3"), stride=8)
    message = f"stride must be 8, that of the model in production {config.serving_base}/3, got 16"
    with pytest.raises(ValueError, match=re.escape(message)):
        create_pipeline(config)


def test_a_model_in_production_that_is_scored_with_another_stride_is_an_error(
    tmp_path, serving_folder
):
    export([1.0] * 10, serving_folder / "3", stride=8)
    message = f"stride must be 8, that of the model in production {serving_folder}/3, got 16"
    with pytest.raises(ValueError, match=re.escape(message)):
        choose_baseline(tmp_path, serving_folder, stride=16)
