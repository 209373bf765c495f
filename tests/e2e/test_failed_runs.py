"""Runs of the whole pipeline that must fail: what they say, and that nothing is pushed."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.e2e.conftest import is_of_eval, start_run

pytestmark = pytest.mark.slow


def write_corpora(folder: Path) -> None:
    """Writes a corpus that is shorter than one context, and one with too many bad records."""
    texts = [f"document {number}" for number in range(100)]
    in_train = [text for text in texts if not is_of_eval(text)]
    in_eval = [text for text in texts if is_of_eval(text)]
    lines = {
        "short": [json.dumps({"text": text}) for text in (in_train[0], *in_eval)],
        "bad": [*(json.dumps({"text": text}) for text in texts), "{broken", '{"text": 7}'],
    }
    for name, content in lines.items():
        (folder / name).mkdir()
        (folder / name / "texts.jsonl").write_text("\n".join(content) + "\n")


@pytest.fixture(scope="module")
def failed_runs(tmp_path_factory) -> dict[str, SimpleNamespace]:
    """Runs that must fail, side by side: most of their time goes into importing TensorFlow."""
    folder = tmp_path_factory.mktemp("failed-runs")
    write_corpora(folder)
    processes = {
        name: start_run(folder, f"output={folder}/output-{name}", f"data={{path: {folder}/{name}}}")
        for name in ("missing", "short", "bad")
    }
    processes["start"] = start_run(folder, f"output={folder}/output-start", "start=nowhere")
    results = {}
    for name, process in processes.items():
        stdout, stderr = process.communicate(timeout=300)
        results[name] = SimpleNamespace(
            folder=folder,
            output=folder / f"output-{name}",
            code=process.returncode,
            stdout=stdout,
            error=stderr[stderr.find("error: ") :],
            stderr=stderr,
        )
    return results


@pytest.mark.parametrize("name", ["missing", "short", "bad", "start"])
def test_a_run_that_fails_ends_with_code_1_and_an_error_and_pushes_nothing(failed_runs, name):
    failed = failed_runs[name]
    assert failed.code == 1
    assert failed.stdout == ""
    assert failed.stderr.count("error: ") == 1
    assert "Traceback" not in failed.stderr
    assert not (failed.output / "serving").exists()
    assert not (failed.output / "summary.json").exists()


def test_a_missing_data_folder_is_named(failed_runs):
    failed = failed_runs["missing"]
    assert failed.error == (
        f"error: data.path must be a folder with texts, got '{failed.folder}/missing', which is no "
        "folder\n"
    )


def test_weights_to_start_from_that_are_not_there_are_told_before_anything_runs(failed_runs):
    failed = failed_runs["start"]
    assert failed.error == (
        "error: start must be 'scratch', 'production' or a folder with weights, got 'nowhere', "
        "which is no folder\n"
    )
    assert [path.name for path in failed.output.iterdir()] == ["logs"]


def test_a_corpus_shorter_than_one_context_is_told_with_its_size(failed_runs):
    # "document 0" or the like, which is two tokens, and one <|endoftext|>.
    assert failed_runs["short"].error == (
        "error: the train split is too small: a split must hold at least one context of "
        "32 tokens, got 3 tokens in 1 documents\n"
    )


def test_more_bad_records_than_the_limit_are_told_with_file_line_and_reason(failed_runs):
    failed = failed_runs["bad"]
    path = f"{failed.folder}/bad/texts.jsonl"
    assert "2 of 102 records refused, 1.961%, more than max_refused_share 0.100%" in failed.error
    assert f"\n  {path}:101: broken JSON: " in failed.error
    assert f'\n  {path}:102: "text" is of type int, not a string\n' in failed.error
    dead_letters = failed.output / "refused" / "tiny" / "refused.jsonl"
    assert str(dead_letters) in failed.error
    assert [json.loads(line)["line"] for line in dead_letters.read_text().splitlines()] == [
        101, 102
    ]  # fmt: skip
