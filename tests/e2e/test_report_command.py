"""`gpt2-tfx report` on a real run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import FinishedRun, start
from tests.pages import PageText


def report(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    process = start(folder, sys.executable, "-m", "pipeline", "report", "--config=tiny", *options)
    stdout, stderr = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@pytest.fixture(scope="module")
def page(first_run: FinishedRun, tmp_path_factory) -> PageText:
    folder = tmp_path_factory.mktemp("report")
    overrides = [f"--set={override}" for override in first_run.overrides]
    result = report(folder, *overrides, "--output=here/page.html")
    assert (result.returncode, result.stdout, result.stderr) == (0, "wrote here/page.html\n", "")
    assert [path.name for path in folder.rglob("*")] == ["here", "page.html"]
    return PageText((folder / "here" / "page.html").read_text())


def test_the_report_has_what_the_runs_own_summary_says(first_run, page):
    header, *_, first = page.rows["runs"]  # the newest stands first
    summary = first_run.summary
    version = Path(summary["pushed_path"]).name
    assert (
        dict(zip(header, first, strict=True)).items()
        >= {
            "run": "1",
            "documents": "136",
            "perplexity": f"{summary['eval_perplexity']:,.1f}",
            "compared with": f"the unigram model: {summary['unigram_perplexity']:,.1f}",
            "blessed": "yes",
            "outcome": "pushed",
            "version": version,
        }.items()
    )
    lineage = page.sections["lineage"]
    assert f"{summary['train_tokens']:,} train, {summary['eval_tokens']:,} eval" in lineage
    assert f"{summary['parameters']:,} parameters, 60 steps from scratch" in lineage
    assert f"Data 4 files, {97_880:,} bytes" in lineage
    assert f"Version {version}" in page.sections["samples"]


def test_sources_lengths_and_refused_records_are_those_of_the_sample_corpus(page):
    sources = [row[0] for row in page.rows["sources"][1:]]
    assert sources == ["garden_dialogues", "harbour_tales", "kitchen_book", "weather_log"]
    assert "136 documents, 23,590 tokens." in page.sections["lengths"]
    assert "None: every record that the newest run read" in page.sections["refused"]


def test_a_run_that_failed_is_told_with_its_error(tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.jsonl").write_text(json.dumps({"text": "a"}) + "\n{broken\n")
    options = [f"--set=output={tmp_path}/output", f"--set=data={{path: {texts}}}"]
    process = start(tmp_path, sys.executable, "-m", "pipeline", "run", "--config=tiny", *options)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1
    error = stderr[stderr.index("error: ") + len("error: ") :]
    result = report(tmp_path, *options)
    assert result.stdout == f"wrote {tmp_path}/output/report.html\n"
    page = PageText((tmp_path / "output" / "report.html").read_text())
    assert f"failed in CorpusExampleGen. {' '.join(error.split())} Log: " in page.sections["newest"]
    assert page.rows["refused"][1][:2] == [f"{texts}/a.jsonl", "2"]


def test_without_a_run_the_command_fails_and_says_what_to_do(tmp_path):
    result = report(tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: no run yet: there is no output/metadata.db; `gpt2-tfx")
