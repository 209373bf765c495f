"""components/transformed_examples.py: what Transform wrote is read back, token by token."""

from pathlib import Path

import numpy as np
import pytest

from components.transformed_examples import fingerprint, list_files, read_batches
from tests.small_examples import write_examples

DOCUMENTS = [[15496, 995, 50256], [0, 50256], [50256], [65535, 1, 2, 3, 50256]]
NUM_BYTES = [11, 1, 0, 7]


def test_documents_are_read_back_with_tokens_lengths_and_bytes(tmp_path):
    files = [
        write_examples(tmp_path / "a.tfrecord", DOCUMENTS[:1], NUM_BYTES[:1]),
        write_examples(tmp_path / "b.tfrecord", DOCUMENTS[1:], NUM_BYTES[1:]),
    ]
    batches = list(read_batches(files))
    tokens, lengths, num_bytes = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    assert tokens.tolist() == [15496, 995, 50256, 0, 50256, 50256, 65535, 1, 2, 3, 50256]
    assert lengths.tolist() == [3, 2, 1, 5]
    assert num_bytes.tolist() == [11, 1, 0, 7]


def test_more_documents_than_are_read_at_a_time_all_come_in_order(tmp_path):
    documents = [[number] * (1 + number % 3) for number in range(1000)]
    batches = list(read_batches([write_examples(tmp_path / "a.tfrecord", documents)]))
    assert len(batches) > 1
    tokens, lengths, _ = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    assert tokens.tolist() == [token for document in documents for token in document]
    assert lengths.tolist() == [1 + number % 3 for number in range(1000)]


def test_files_of_several_patterns_are_listed_in_order_of_their_names(tmp_path):
    for name in ("b-2", "b-1", "a-1", "c-1"):
        (tmp_path / name).write_bytes(b"")
    patterns = [f"{tmp_path}/b-*", f"{tmp_path}/a-*"]
    assert list_files(patterns) == [f"{tmp_path}/{name}" for name in ("a-1", "b-1", "b-2")]


def test_no_files_are_an_error_that_names_the_pattern(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no transformed examples.*{tmp_path}/nothing-"):
        list_files([f"{tmp_path}/nothing-*"])


def test_the_same_documents_have_the_same_fingerprint_wherever_they_lie(tmp_path):
    first = write_examples(tmp_path / "run-1" / "a.tfrecord", DOCUMENTS)
    second = write_examples(tmp_path / "run-2" / "a.tfrecord", DOCUMENTS)
    assert fingerprint([first]) == fingerprint([second])


@pytest.mark.parametrize(
    "changed",
    [
        [[15496, 994, 50256], *DOCUMENTS[1:]],  # a token
        DOCUMENTS[::-1],  # the order
        DOCUMENTS[:-1],  # one less
        [*DOCUMENTS, [50256]],  # one more
    ],
)
def test_other_documents_have_another_fingerprint(tmp_path, changed):
    before = fingerprint([write_examples(tmp_path / "a.tfrecord", DOCUMENTS)])
    assert fingerprint([write_examples(tmp_path / "a.tfrecord", changed)]) != before


def test_a_file_more_or_less_changes_the_fingerprint(tmp_path):
    files = [write_examples(tmp_path / name, DOCUMENTS) for name in ("a.tfrecord", "b.tfrecord")]
    assert len({fingerprint(files), fingerprint(files[:1]), fingerprint([])}) == 3


def test_a_token_far_back_in_a_large_file_changes_the_fingerprint_though_not_the_length(tmp_path):
    documents = [[40_000] * 1000 for _ in range(600)]
    paths = []
    for last in (40_000, 40_001):
        documents[-1][-1] = last
        # Two files that differ in the last bytes only.
        paths.append(Path(write_examples(tmp_path / str(last) / "a.tfrecord", documents)))
    before, after = (path.read_bytes() for path in paths)
    assert len(before) == len(after) > 1_500_000
    assert before[:1_500_000] == after[:1_500_000]
    assert fingerprint([str(paths[0])]) != fingerprint([str(paths[1])])
