"""components/records.py: each format, each kind of bad record."""

import gzip
import json
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.records import MOST_BLANKS, Document, Refusal, read_records, suffix_of
from model.tokenizer import gpt2_encoding


def documents(path: str) -> list[Document]:
    """The file's records, all of which are to be good."""
    records = list(read_records(path))
    assert [record for record in records if not isinstance(record, Document)] == []
    return [record for record in records if isinstance(record, Document)]


def split(path: str) -> tuple[list[Document], list[Refusal]]:
    """The file's documents and refusals, each in order."""
    records = list(read_records(path))
    return (
        [record for record in records if isinstance(record, Document)],
        [record for record in records if isinstance(record, Refusal)],
    )


def write(folder: Path, name: str, content: bytes) -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def write_parquet(folder: Path, name: str, columns: dict, **options) -> str:
    path = str(folder / name)
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def invalid_strings(values: list[bytes]) -> pyarrow.Array:
    """A string column as a careless writer makes it: Arrow does not check it on the way."""
    return pyarrow.array(values, pyarrow.binary()).view(pyarrow.string())


GOOD_LINE = b'{"text": "a", "source": "s"}\n'

BAD_CONTENT = [
    ("a.txt", b"one\ntwo \xff\n", 2, "invalid UTF-8: byte 0xff at offset 8"),
    ("a.txt", b"", 1, 'empty "text"'),
    ("a.txt", b" \n\t\n", 1, 'empty "text"'),
    ("a.jsonl", b'{"text": "caf\xe9"}\n', 1, "invalid UTF-8: byte 0xe9 at offset 13"),
    ("a.jsonl", b'{"text": "a"', 1, "broken JSON: Expecting ',' delimiter: column 13"),
    ("a.jsonl", b'["text"]', 1, "JSON is of type list, not an object"),
    ("a.jsonl", b"null", 1, "JSON is null, not an object"),
    ("a.jsonl", b'{"body": "a"}', 1, 'no "text"'),
    ("a.jsonl", b'{"text": 7}', 1, '"text" is of type int, not a string'),
    ("a.jsonl", b'{"text": null}', 1, '"text" is null, not a string'),
    ("a.jsonl", b'{"text": "a", "source": 7}', 1, '"source" is of type int, not a string'),
    ("a.jsonl", b'{"text": ""}', 1, 'empty "text"'),
    ("a.jsonl", b'{"text": " \\n\\u00a0"}', 1, 'empty "text"'),
    ("a.jsonl", b'{"text": "\\ud800"}', 1, '"text" is no Unicode text: surrogates not allowed'),
    ("a.jsonl", b"[" * 100_000, 1, "broken JSON: maximum recursion depth exceeded"),
    ("a.jsonl", GOOD_LINE * 2 + b"\n{\n", 4, "broken JSON"),
    ("a.jsonl.gz", gzip.compress(GOOD_LINE + b"{}\n", mtime=0), 2, 'no "text"'),
    ("a.jsonl.gz", GOOD_LINE, 1, "broken gzip: Not a gzipped file"),
    ("a.parquet", b"not at all", 1, "broken Parquet: Parquet magic bytes not found"),
    ("a.parquet", b"", 1, "broken Parquet: Parquet file size is 0 bytes"),
]


@pytest.mark.parametrize(("name", "content", "line", "reason"), BAD_CONTENT)
def test_a_bad_record_is_refused_with_its_line_and_reason(tmp_path, name, content, line, reason):
    path = write(tmp_path, name, content)
    good, (refusal,) = split(path)
    assert all(document == Document("a", "s") for document in good)
    assert (refusal.file, refusal.line) == (path, line)
    assert refusal.reason.startswith(reason)


def test_as_many_blanks_in_a_row_are_refused_as_tiktoken_cannot_take(tmp_path):
    longest = "x" + " " * MOST_BLANKS + "y"
    assert split(write(tmp_path, "a.txt", longest.encode())) == ([Document(longest, "a")], [])
    assert len(gpt2_encoding().encode_ordinary(longest)) > 0
    _, (refusal,) = split(write(tmp_path, "a.txt", b"x\n" + b" " * MOST_BLANKS + b"y"))
    assert refusal.reason == '"text" has 900,001 blanks in a row, more than 900,000'


BAD_COLUMNS = [
    ({"body": ["a"]}, 'no column "text", only body'),
    ({"text": [7]}, '"text" is of type int, not a string'),
    ({"text": pyarrow.array([None], pyarrow.string())}, '"text" is null, not a string'),
    ({"text": ["a"], "source": [7]}, '"source" is of type int, not a string'),
    ({"text": [" "]}, 'empty "text"'),
    ({"text": [["a"]]}, '"text" is of type list, not a string'),
    ({"text": [b"\xff"]}, "invalid UTF-8: byte 0xff at offset 0"),
    ({"text": invalid_strings([b"a\xff"])}, "invalid UTF-8: byte 0xff at offset 1"),
]


@pytest.mark.parametrize(("columns", "reason"), BAD_COLUMNS)
def test_a_bad_parquet_row_is_refused_with_its_reason(tmp_path, columns, reason):
    path = write_parquet(tmp_path, "a.parquet", columns)
    good, (refusal,) = split(path)
    assert good == []
    assert (refusal.file, refusal.line, refusal.reason) == (path, 1, reason)


def test_a_dead_letter_shows_how_the_record_begins(tmp_path):
    _, (refusal,) = split(write(tmp_path, "a.jsonl", b"\xff" + b"x" * 1000))
    assert refusal.record == r"b'\xff" + "x" * 199 + "'"
    assert json.loads(refusal.to_json()) == {
        "file": str(tmp_path / "a.jsonl"),
        "line": 1,
        "reason": "invalid UTF-8: byte 0xff at offset 0",
        "record": refusal.record,
    }


def test_blank_lines_are_no_records_but_count_as_lines(tmp_path):
    content = b'\n{"text": "a"}\n\n  \n{"text": "b"}\r\n{}\n\n'
    good, (refusal,) = split(write(tmp_path, "x.jsonl", content))
    assert good == [Document("a", "x"), Document("b", "x")]
    assert refusal.line == 6


def test_a_last_line_without_newline_is_a_record(tmp_path):
    path = write(tmp_path, "x.jsonl", b'{"text": "a"}\n{"text": "b"}')
    assert list(read_records(path)) == [Document("a", "x"), Document("b", "x")]


@pytest.mark.parametrize("source", ["", ', "source": null', ', "source": " "'])
def test_without_a_source_it_is_the_files_name(tmp_path, source):
    line = f'{{"text": "a"{source}}}'.encode()
    expected = [Document("a", "some.corpus")]
    assert list(read_records(write(tmp_path, "some.corpus.jsonl", line))) == expected
    path = write(tmp_path, "some.corpus.JSONL.GZ", gzip.compress(line))
    assert list(read_records(path)) == expected


def test_a_text_file_is_one_document_as_it_stands(tmp_path):
    path = write(tmp_path, "poem.txt", "  Zwölf\r\n\n".encode())
    assert list(read_records(path)) == [Document("  Zwölf\r\n\n", "poem")]


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path):
    path = write(tmp_path, "a.txt", b"\xef\xbb\xbfa")
    assert list(read_records(path)) == [Document("a", "a")]
    path = write(tmp_path, "a.jsonl", b"\xef\xbb\xbf" + GOOD_LINE)
    assert list(read_records(path)) == [Document("a", "s")]


def test_of_a_truncated_gzip_file_the_whole_lines_are_kept(tmp_path):
    noise = random.Random(0)
    texts = ["".join(noise.choices("abcdefgh", k=200)) for _ in range(2000)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    content = gzip.compress(lines.encode())
    good, (refusal,) = split(write(tmp_path, "a.jsonl.gz", content[: len(content) // 2]))
    assert 500 < len(good) < 1500
    assert [document.text for document in good] == texts[: len(good)]
    assert refusal.line == len(good) + 1
    assert refusal.reason.startswith("broken gzip: Compressed file ended before")


def test_a_gzip_file_is_read_as_a_stream(tmp_path):
    # 1 GB of lines in 1 MB: the first document must come without the rest.
    block = gzip.compress(b'{"text": "' + b"a" * 1_000_000 + b'"}\n')
    first = next(read_records(write(tmp_path, "a.jsonl.gz", block * 1000)))
    assert isinstance(first, Document)
    assert len(first.text) == 1_000_000


def test_rows_are_numbered_across_row_groups(tmp_path):
    texts = [f"text {i}" for i in range(1000)]
    texts[0] = texts[641] = ""
    path = write_parquet(tmp_path, "a.parquet", {"text": texts}, row_group_size=300)
    good, refused = split(path)
    assert [refusal.line for refusal in refused] == [1, 642]
    assert [document.text for document in good] == [text for text in texts if text]


def test_every_row_behind_a_broken_page_is_refused(tmp_path):
    noise = random.Random(0)
    texts = ["".join(noise.choices("abcdefgh", k=200)) for _ in range(1000)]
    path = write_parquet(tmp_path, "a.parquet", {"text": texts}, row_group_size=300)
    content = bytearray(Path(path).read_bytes())
    middle = len(content) // 2  # in the second row group
    content[middle : middle + 1000] = bytes(1000)
    Path(path).write_bytes(content)
    good, refused = split(path)
    assert [document.text for document in good] == texts[:300]
    assert [refusal.line for refusal in refused] == list(range(301, 1001))
    assert all(refusal.reason.startswith("broken Parquet") for refusal in refused)


def test_every_row_of_a_parquet_file_without_text_is_refused(tmp_path):
    path = write_parquet(tmp_path, "a.parquet", {"body": ["a"] * 7, "source": ["s"] * 7})
    good, refused = split(path)
    assert good == []
    assert [refusal.line for refusal in refused] == [1, 2, 3, 4, 5, 6, 7]
    assert {refusal.reason for refusal in refused} == {'no column "text", only body, source'}


def test_parquet_strings_may_be_bytes_large_or_from_a_dictionary(tmp_path):
    for kind in (
        pyarrow.binary(),
        pyarrow.large_string(),
        pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    ):
        texts = pyarrow.array(["a", "b", "a"]).cast(kind)
        path = write_parquet(tmp_path, "a.parquet", {"text": texts, "other": [1, 2, 3]})
        assert [document.text for document in documents(path)] == ["a", "b", "a"]


@pytest.mark.parametrize("name", ["a[1].parquet", "a*.parquet", "a?.jsonl", "a [b].txt"])
def test_a_file_name_is_no_pattern(tmp_path, name):
    if name.endswith(".parquet"):
        path = write_parquet(tmp_path, name, {"text": ["a"]})
    else:
        path = write(tmp_path, name, b'{"text": "a"}' if name.endswith(".jsonl") else b"a")
    assert [document.text for document in documents(path)] == ["a"]


def test_an_empty_file_of_records_has_none(tmp_path):
    assert list(read_records(write(tmp_path, "a.jsonl", b""))) == []
    assert list(read_records(write(tmp_path, "a.jsonl.gz", gzip.compress(b"")))) == []
    empty = {"text": pyarrow.array([], pyarrow.string())}
    assert list(read_records(write_parquet(tmp_path, "a.parquet", empty))) == []


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_a_file_that_cannot_be_opened_is_no_bad_record(tmp_path, name):
    with pytest.raises(OSError, match="a\\."):
        list(read_records(str(tmp_path / name)))


def test_hidden_and_other_files_have_no_format():
    names = ["a.txt", "a.jsonl", "a.json", "a.gz", "a.txt.gz", ".a.txt", ".jsonl", "A.PARQUET", "a"]
    assert [suffix_of(name) for name in names] == [
        ".txt", ".jsonl", None, None, None, None, None, ".parquet", None
    ]  # fmt: skip


text = st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(text, text)))
def test_what_is_written_is_what_is_read_in_every_format(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("formats")
    lines = "".join(json.dumps({"text": t, "source": s}) + "\n" for t, s in pairs)
    raw = "".join(json.dumps({"text": t, "source": s}, ensure_ascii=False) + "\n" for t, s in pairs)
    columns = {
        "text": pyarrow.array([t for t, _ in pairs], pyarrow.string()),
        "source": pyarrow.array([s for _, s in pairs], pyarrow.string()),
    }
    expected = [Document(t, s) for t, s in pairs]
    assert list(read_records(write(folder, "a.jsonl", lines.encode()))) == expected
    assert list(read_records(write(folder, "b.jsonl", raw.encode()))) == expected
    assert list(read_records(write(folder, "a.jsonl.gz", gzip.compress(raw.encode())))) == expected
    assert list(read_records(write_parquet(folder, "a.parquet", columns))) == expected
