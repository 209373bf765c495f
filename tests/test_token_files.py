"""components/token_files.py: the tokens that Transform wrote, mapped from files."""

import os
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from components import token_files
from components.token_files import digest, map_documents
from tests.small_examples import write_examples

DOCUMENTS = [[15496, 995, 50256], [0, 50256], [50256], [65535, 1, 2, 3, 50256]]
TOKENS = [15496, 995, 50256, 0, 50256, 50256, 65535, 1, 2, 3, 50256]


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_tokens_and_lengths_of_all_files_come_in_order(tmp_path):
    files = [
        write_examples(tmp_path / "a.tfrecord", DOCUMENTS[:1]),
        write_examples(tmp_path / "b.tfrecord", DOCUMENTS[1:]),
    ]
    tokens, lengths = map_documents(files, tmp_path / "tokens" / "train")
    assert tokens.dtype == np.uint16
    assert tokens.tolist() == TOKENS
    assert lengths.dtype == np.int64
    assert lengths.tolist() == [3, 2, 1, 5]


def test_more_documents_than_are_read_at_a_time_all_come_in_order(tmp_path):
    documents = [[number] * (1 + number % 3) for number in range(1000)]
    file = write_examples(tmp_path / "a.tfrecord", documents)
    tokens, lengths = map_documents([file], tmp_path / "train")
    assert tokens.tolist() == [token for document in documents for token in document]
    assert lengths.tolist() == [1 + number % 3 for number in range(1000)]


def test_the_digest_is_that_of_the_documents_however_their_examples_are_written(tmp_path):
    def digest_of(documents: list[list[int]], name: str, is_reversed: bool = False) -> str:
        file = write_examples(tmp_path / name, documents, is_reversed=is_reversed)
        map_documents([file], tmp_path / "tokens" / name)
        return digest(tmp_path / "tokens" / name)

    before = digest_of(DOCUMENTS, "a")
    assert digest_of(DOCUMENTS, "b", is_reversed=True) == before
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()
    assert digest_of([*DOCUMENTS[:-1], [65535, 1, 2, 4, 50256]], "c") != before
    assert digest_of([DOCUMENTS[0] + DOCUMENTS[1], *DOCUMENTS[2:]], "d") != before


def test_a_second_call_reads_no_examples(tmp_path):
    file = write_examples(tmp_path / "a.tfrecord", DOCUMENTS)
    map_documents([file], tmp_path / "train")
    os.remove(file)
    tokens, lengths = map_documents([file], tmp_path / "train")
    assert tokens.tolist() == TOKENS
    assert lengths.tolist() == [3, 2, 1, 5]


def test_tokens_are_mapped_not_read_and_cannot_be_changed(tmp_path):
    file = write_examples(tmp_path / "a.tfrecord", DOCUMENTS)
    tokens, _ = map_documents([file], tmp_path / "train")
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1
    with (tmp_path / "train" / "tokens.bin").open("r+b") as stream:
        stream.write(np.array([7], "<u2").tobytes())
    assert tokens.tolist() == [7, *TOKENS[1:]]


@pytest.mark.parametrize("wrong", [65536, -1, 2**40])
def test_an_id_that_does_not_fit_is_an_error_and_leaves_nothing_behind(tmp_path, wrong):
    file = write_examples(tmp_path / "a.tfrecord", [*DOCUMENTS, [1, wrong, 50256]])
    with pytest.raises(ValueError, match=f"^input_ids must be from 0 to 65535, got {wrong}$"):
        map_documents([file], tmp_path / "tokens" / "train")
    assert contents(tmp_path / "tokens") == []


def test_all_ids_from_0_to_65535_are_kept(tmp_path):
    file = write_examples(tmp_path / "a.tfrecord", [list(range(65536))])
    assert map_documents([file], tmp_path / "train")[0].tolist() == list(range(65536))


@pytest.mark.parametrize("documents", [[], [[]]])
def test_no_tokens_are_an_empty_array(tmp_path, documents):
    file = write_examples(tmp_path / "a.tfrecord", documents)
    for _ in range(2):
        tokens, lengths = map_documents([file], tmp_path / "train")
        assert tokens.dtype == np.uint16
        assert tokens.tolist() == []
        assert lengths.tolist() == [0] * len(documents)


def test_a_process_that_is_killed_leaves_no_folder_that_could_be_taken_for_the_whole(
    tmp_path, monkeypatch
):
    file, folder = write_examples(tmp_path / "a.tfrecord", DOCUMENTS), tmp_path / "tokens" / "train"
    fsync, written = os.fsync, []

    def look(descriptor: int) -> None:
        assert not folder.exists()
        fsync(descriptor)
        written.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", look)
    map_documents([file], folder)
    # Both files had reached the disk when the folder got its name.
    assert sorted(written) == sorted(path.stat().st_ino for path in folder.iterdir())
    assert contents(folder) == ["lengths.npy", "tokens.bin"]


def test_two_workers_that_write_at_once_both_get_the_tokens(tmp_path, monkeypatch):
    file, folder = write_examples(tmp_path / "a.tfrecord", DOCUMENTS), tmp_path / "tokens" / "train"
    save, others = np.save, []

    def be_overtaken(stream: BinaryIO, lengths: np.ndarray) -> None:
        monkeypatch.undo()
        others.append(map_documents([file], folder))
        save(stream, lengths)

    monkeypatch.setattr(token_files.np, "save", be_overtaken)
    ours = map_documents([file], folder)
    for tokens, lengths in (ours, *others):
        assert tokens.tolist() == TOKENS
        assert lengths.tolist() == [3, 2, 1, 5]
    assert len(others) == 1
    assert contents(tmp_path / "tokens") == ["train", "train/lengths.npy", "train/tokens.bin"]


def test_what_a_killed_process_left_behind_is_deleted_and_what_another_writes_is_not(tmp_path):
    file, now = write_examples(tmp_path / "a.tfrecord", DOCUMENTS), time.time()
    for name, hours in (("writing-old", 25), ("writing-new", 23)):
        path = tmp_path / "tokens" / name / "train" / "tokens.bin"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"12")
        for touched in (path, path.parent, path.parent.parent):
            os.utime(touched, (now - hours * 3600, now - hours * 3600))
    map_documents([file], tmp_path / "tokens" / "train")
    assert sorted(path.name for path in (tmp_path / "tokens").iterdir()) == ["train", "writing-new"]


def test_files_that_do_not_belong_together_are_an_error_that_says_what_to_do(tmp_path):
    file = write_examples(tmp_path / "a.tfrecord", DOCUMENTS)
    map_documents([file], tmp_path / "train")
    with (tmp_path / "train" / "tokens.bin").open("r+b") as stream:
        stream.truncate(20)
    message = r"lengths.npy counts 11 tokens, but tokens.bin has 20 bytes: delete the folder"
    with pytest.raises(ValueError, match=f"^{tmp_path}/train: {message}"):
        map_documents([file], tmp_path / "train")
