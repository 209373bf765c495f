"""model/staged_file.py: a file is there whole, or as it was before."""

from pathlib import Path

import pytest

from model.staged_file import write_whole


def test_a_file_is_written_in_utf_8_and_replaces_the_one_before_it(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_whole(path, "é\n")
    assert path.read_bytes() == b"\xc3\xa9\n"
    write_whole(str(path), "b")
    assert path.read_bytes() == b"b"
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]


def test_what_cannot_be_finished_leaves_the_file_before_it_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("before")

    def fail(staged: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, "after")
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
