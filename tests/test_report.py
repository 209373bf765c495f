"""pipeline/report.py and what it reads; a report on a real run is in tests/e2e."""

import json
import math
import os
import shutil
from pathlib import Path

import pytest

from components.evaluation import eval_config
from pipeline import report, report_samples
from pipeline.cli import main
from pipeline.report import render_report, write_report
from pipeline.report_data import read_curves, read_lengths, read_refusals
from pipeline.report_runs import read_run_reports
from serving.client import GenerateClient
from tests.made_models import Document, evaluate
from tests.made_runs import MadeRuns, add_data, add_training, add_verdict
from tests.pages import PageText
from tests.small_served import base_path, running_gpt2

EVIL = "<script>alert(1)</script>"
REFUSALS = [
    {"file": "my/texts/a.jsonl", "line": 3, "reason": f"no {EVIL}", "record": "b'{<i>broken'"},
    {"file": "my/texts/b.jsonl", "line": 8, "reason": "blank", "record": "b''"},
]


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory) -> list[str]:
    """Folders that TFMA wrote: perplexities 100 and 90, compared with 120 and 100."""
    documents = [Document([0, 0, 0], 4, EVIL), Document([0], 2, "poem")]
    return [
        evaluate(
            tmp_path_factory.mktemp("evaluation"), eval_config(95, 0), documents,
            [math.log(candidate)], [math.log(baseline)],
        )
        for candidate, baseline in ((100, 120), (90, 100))
    ]  # fmt: skip


@pytest.fixture
def runs(tmp_path) -> MadeRuns:
    return MadeRuns(tmp_path)


@pytest.fixture(scope="module")
def three_runs(tmp_path_factory, evaluations) -> MadeRuns:
    """One that pushed, one that was not good enough, one that failed."""
    runs = MadeRuns(tmp_path_factory.mktemp("runs"))
    version = runs.output / "serving" / "tiny" / "41"
    shutil.copytree(base_path() / "1", version)
    runs.start("2026-01-02T03:04:05")
    outputs = add_data(runs, REFUSALS)
    add_training(runs, [6.0, 5.0, 4.0])
    add_verdict(runs, evaluations[1], None, True, str(version))
    runs.start("2026-01-03T03:04:05")
    examples = {"examples": outputs["examples"]}
    runs.add("CorpusExampleGen", examples, "CACHED", input_base="my/texts", input_config="span-7")
    tokens = {"transformed_examples": outputs["transformed_examples"]}
    runs.add("Transform", tokens, "CACHED")
    add_training(runs, [7.0, 6.5])
    add_verdict(runs, evaluations[0], 41, False)
    runs.start("2026-01-04T03:04:05")
    runs.add("CorpusExampleGen", state="FAILED", input_base="my/texts", input_config="*")
    logs = runs.output / "logs"
    logs.mkdir()
    (logs / "run-1.log").write_text("2026-01-04T03:04:05\nerror: a <b>bad</b> file\n  line 7\n")
    (logs / "run-0.log").write_text("another run\nerror: another\n")
    return runs


@pytest.fixture(scope="module")
def html(three_runs) -> str:
    return render_report(three_runs.config)


@pytest.fixture(scope="module")
def page(html) -> PageText:
    return PageText(html)


def test_each_run_is_told_with_its_data_its_perplexity_its_baseline_and_what_became_of_it(page):
    header, *rows = page.rows["runs"]
    told = [dict(zip(header, row, strict=True)) for row in rows]
    assert [
        [row[name] for name in ("run", "documents", "perplexity", "compared with", "blessed")]
        for row in told
    ] == [
        ["3", "–", "–", "–", "–"],
        ["2", "4", "100.0", "version 41: 120.0", "no"],
        ["1", "4", "90.0", "the unigram model: 100.0", "yes"],
    ]
    assert [row["outcome"] for row in told] == [
        "failed in CorpusExampleGen",
        "not pushed",
        "pushed",
    ]
    assert [row["version"] for row in told] == ["–", "–", "41"]
    assert [row["data"] for row in told] == ["my/texts", "my/texts , span 7", "my/texts , span 7"]


def test_a_newest_run_that_failed_is_told_with_its_reason_and_what_came_before_stays(page):
    newest = page.sections["newest"]
    assert "number 3 of" in newest
    assert "failed in CorpusExampleGen. a <b>bad</b> file line 7 Log:" in newest
    assert "run-1.log" in newest
    assert "another" not in newest
    assert (
        "100.0 over all, 120.0 for what it was compared with, version 41"
        in (page.sections["sources"])
    )


def test_the_newest_training_is_shown_and_that_of_the_model_in_production(page):
    newest, in_production = page.sections["training"].split("Run ")[1:]
    assert newest.startswith("2 2 steps from scratch, 99 tokens seen, a mean train loss of 4.500")
    assert in_production.startswith("1 in production 3 steps from scratch, 99 tokens seen")
    charts = [attributes["aria-label"] for name, attributes in page.tags if name == "svg"]
    assert charts.count("Loss of both splits by step") == 2
    assert charts.count("Learning rate by step") == 2


def test_the_way_from_the_data_to_the_version_is_told_and_which_run_made_what(page, three_runs):
    one, two = page.sections["lineage"].split("Run 2")[1].split("Run 1")[::-1]
    for text in (one, two):
        assert "Data span 7: 2 files, 1,234 bytes my/texts" in text
        assert "4 documents (3 train, 1 eval), 2 records refused" in text
        assert "num_files:2,total_bytes:1234,xor_checksum:1,sum_checksum:9" in text
    assert "made by" not in one
    assert two.count("made by run 1") == 2
    assert "perplexity 90.0 against 100.0 of the unigram model" in one
    assert f"Version 41 {three_runs.output}/serving/tiny/41" in one
    assert "in production" in one
    assert "Version none: not pushed" in two
    assert "Blessed: no: perplexity is 100.0, needed 95 or less" in two


def test_whatever_comes_from_data_is_text_in_the_page(page):
    names = {name for name, _ in page.tags}
    assert not names & {"script", "i.broken", "em"}
    assert [name for name, attributes in page.tags if name == "i" and not attributes] == []
    assert [score[0] for score in page.rows["sources"][1:]] == [EVIL, "poem"]
    assert any(f"{EVIL}: 100.0, compared with 120.0" in page.sections[id] for id in ["sources"])


def test_the_page_loads_nothing(page, html):
    loading = {"script", "link", "img", "iframe", "object", "embed", "base", "audio", "video"}
    assert not {name for name, _ in page.tags} & loading
    attributes = {name for _, attributes in page.tags for name in attributes}
    assert not attributes & {"src", "href", "srcset", "action", "xlink:href", "background"}
    for word in ("://", "url(", "@import"):
        assert word not in html
    policy = next(attrs for name, attrs in page.tags if "http-equiv" in attrs)
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_refused_records_are_told_with_file_line_and_reason(runs):
    runs.start("a")
    add_data(runs, REFUSALS)
    page = PageText(render_report(runs.config))
    assert page.rows["refused"][1:] == [
        ["my/texts/a.jsonl", "3", f"no {EVIL}", "b'{<i>broken'"],
        ["my/texts/b.jsonl", "8", "blank", "b''"],
    ]
    assert "2 in the newest run; all are in" in page.sections["refused"]


def test_of_many_refused_records_the_first_are_shown_and_all_are_counted(runs, monkeypatch):
    monkeypatch.setattr("pipeline.report_data.SHOWN_REFUSALS", 1)
    runs.start("a")
    add_data(runs, REFUSALS)
    (newest,) = read_run_reports(runs.config, 10)
    refusals = read_refusals(runs.config, newest)
    assert refusals
    assert (refusals.shown, refusals.total) == (REFUSALS[:1], 2)


def test_a_run_that_failed_by_its_records_has_them_from_the_configurations_folder(runs):
    refused = Path(runs.config.refused_folder) / "refused.jsonl"
    refused.parent.mkdir(parents=True)
    runs.start("a")
    runs.add("CorpusExampleGen", state="FAILED")
    refused.write_text(json.dumps(REFUSALS[1]))
    (newest,) = read_run_reports(runs.config, 10)
    refusals = read_refusals(runs.config, newest)
    assert refusals
    assert (refusals.shown, refusals.path) == (REFUSALS[1:], str(refused))
    # One that was written before the run began is not this run's.
    os.utime(refused, (1, 1))
    assert read_refusals(runs.config, newest) is None


def test_without_a_run_the_error_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pipeline.cli._log_native_messages", lambda config, name: tmp_path / "log")
    monkeypatch.setattr("pipeline.local_runner.log_to_file", lambda path: None)
    assert main(["report", "--config=tiny", f"--set=output={tmp_path}/output"]) == 1
    assert capsys.readouterr().err == (
        f"error: no run yet: there is no {tmp_path}/output/metadata.db; `gpt2-tfx run` with the "
        "same --config and --set makes one\n"
    )
    assert not (tmp_path / "output").exists()


def test_a_folder_is_no_place_for_a_report(runs):
    with pytest.raises(ValueError, match=r"--output must be a file, got the folder '.*output'"):
        write_report(runs.config, str(runs.output))


def test_a_report_that_cannot_be_finished_leaves_the_one_before_it(runs, monkeypatch):
    runs.start("a")
    add_data(runs, [])
    path = write_report(runs.config)
    assert path == f"{runs.output}/report.html"
    before = Path(path).read_text()
    assert "<title>tiny: report</title>" in before
    files = sorted(os.listdir(runs.output))

    def replace_in_vain(staged: Path, target: Path) -> None:
        assert staged.stat().st_size > 1000
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", replace_in_vain)
    runs.start("b")
    with pytest.raises(OSError, match="disk full"):
        write_report(runs.config)
    assert Path(path).read_text() == before
    assert sorted(os.listdir(runs.output)) == files


def test_a_component_that_never_ended_is_told(runs):
    runs.start("a")
    add_data(runs, [])
    runs.add("Trainer", state="RUNNING", custom_config='{"model": {}, "training": {}}')
    page = PageText(render_report(runs.config))
    assert "broke off in Trainer, or still runs." in page.sections["newest"]
    assert page.rows["runs"][1][8] == "broke off in Trainer, or still runs"


def test_a_run_that_was_ended_early_and_well_is_told_with_its_last_component(runs):
    runs.start("a")
    add_data(runs, [])
    page = PageText(render_report(runs.config))
    assert "ended after Transform." in page.sections["newest"]


def test_artifacts_that_are_gone_are_named_and_the_rest_is_told(three_runs, monkeypatch):
    monkeypatch.setattr(report, "write_samples", lambda folder: [])
    reports = read_run_reports(three_runs.config, 10)
    evaluation = reports[1].steps["evaluation"].path
    moved = evaluation + "-moved"
    os.rename(evaluation, moved)
    try:
        gone = read_run_reports(three_runs.config, 10)[1]
        page = PageText(render_report(three_runs.config))
    finally:
        os.rename(moved, evaluation)
    assert gone.missing == [evaluation]
    assert gone.perplexity is None
    assert gone.training == reports[1].training
    assert f"No longer there: {evaluation}" in page.sections["lineage"]


def test_of_very_many_runs_the_newest_are_told_by_their_numbers(runs, monkeypatch):
    monkeypatch.setattr(report, "MAX_RUNS", 2)
    for name in "abc":
        runs.start(name)
        add_data(runs, [])
    page = PageText(render_report(runs.config))
    assert [row[0] for row in page.rows["runs"]] == ["run", "3", "2"]
    assert "The newest 2 of 3 runs." in page.sections[""]


def test_curves_are_means_of_as_many_steps_as_fit_and_skip_what_was_infinite(runs, monkeypatch):
    monkeypatch.setattr("pipeline.report_data.CURVE_POINTS", 3)
    runs.start("a")
    add_training(runs, [9.0, 7.0, None, 5.0, 4.0])
    (newest,) = read_run_reports(runs.config, 10)
    curves = read_curves(newest)
    assert curves
    assert curves.steps_a_point == 2
    assert curves.train_loss == [(1.5, 8.0), (4.0, 5.0), (5.0, 4.0)]
    assert curves.eval_loss == [(5.0, 4.25)]
    assert curves.learning_rate == [
        (1.5, pytest.approx(0.0015)), (3.5, pytest.approx(0.0035)), (5.0, 0.005)
    ]  # fmt: skip


def test_documents_are_measured_without_anything_being_written(runs):
    runs.start("a")
    add_data(runs, [])
    before = sorted(runs.output.rglob("*"))
    (newest,) = read_run_reports(runs.config, 10)
    lengths = read_lengths(runs.config, newest)
    assert lengths
    assert {split: list(values) for split, values in lengths.items()} == {
        "train": [3, 2, 5], "eval": [40]
    }  # fmt: skip
    assert sorted(runs.output.rglob("*")) == before
    told = PageText(render_report(runs.config)).sections["lengths"]
    assert "4 documents, 50 tokens. Half of the documents have 4 tokens or fewer" in told
    assert "the longest has 40. 25.0% are longer than the model's context of 32 tokens" in told


def test_the_model_in_production_writes_what_a_client_of_its_server_gets(page):
    samples = report_samples.write_samples(str(base_path() / "1"))
    with running_gpt2() as server, GenerateClient(server.address, "small") as client:
        prompts = list(report_samples.PROMPTS)
        greedy = client.generate(prompts, max_new_tokens=32)
        drawn = client.generate(prompts, max_new_tokens=32, temperature=0.8, top_p=0.95, seed=1)
    assert [sample.greedy for sample in samples] == [completion.text for completion in greedy]
    assert [sample.sampled for sample in samples] == [completion.text for completion in drawn]
    assert samples[0].greedy != samples[0].sampled
    told = page.sections["samples"]
    assert "Version 41, asked when this page was written." in told
    assert " ".join((samples[1].prompt + " " + samples[1].greedy).split()) in told


def test_new_and_old_data_are_told_apart(runs, tmp_path):
    documents = [Document([0], 2, "play", "new"), Document([1], 2, "play", "old")]
    nll, before = [math.log(60), math.log(126)], [math.log(100), math.log(110)]
    evaluation = evaluate(
        tmp_path / "e", eval_config(90, 0, max_forgetting=0.05), documents, nll, before
    )
    runs.start("a")
    add_data(runs, [])
    add_training(runs, [6.0])
    add_verdict(runs, evaluation, 41, False)
    page = PageText(render_report(runs.config))
    assert (
        "On new data 60.0, compared with 100.0. On old data 126.0, compared with 110.0."
        in (page.sections["sources"])
    )
    assert [row[0] for row in page.rows["sources"]] == ["source", "play"]


def test_without_a_pushed_version_a_sentence_says_so(runs):
    runs.start("a")
    page = PageText(render_report(runs.config))
    assert page.sections["samples"] == (
        "What the model writes Nothing was pushed yet, so no model could write."
    )


def test_a_version_that_was_not_exported_here_is_no_end_of_the_report(runs):
    folder = runs.output / "serving" / "tiny" / "7"
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"")
    runs.start("a")
    page = PageText(render_report(runs.config))
    assert "Version 7 could not be asked: " in page.sections["samples"]
    assert "was pushed by none of the runs below" in page.sections["lineage"]
