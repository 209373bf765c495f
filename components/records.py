"""What a user's files hold, record by record: a document, or the reason why it is none.

Knows nothing of TFX. Files are opened by Beam's filesystems, so gs:// and its kin work too.
"""

import codecs
import glob
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, cast

import apache_beam as beam
import pyarrow
import pyarrow.parquet
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".parquet")

# A million blanks in a row are too many for the regular expression by which tiktoken splits texts.
MOST_BLANKS = 900_000

# A dead letter shows how its record begins, for somebody to recognise it by.
RECORD_LENGTH = 200


@dataclass(frozen=True)
class Document:
    """A text that is not blank and can be encoded as UTF-8, and the slice it belongs to."""

    text: str
    source: str


@dataclass(frozen=True)
class Refusal:
    """A record that is no document.

    Args:
        file: Path of the file.
        line: Number of the line in the file, or of the row in a Parquet file; the first is 1.
        reason: Why it is refused.
        record: How the record begins, in Python's notation, so that no odd byte gets through.
    """

    file: str
    line: int
    reason: str
    record: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def suffix_of(name: str) -> str | None:
    """Returns the suffix that says how the file is read; None for hidden files and all others."""
    if name.startswith("."):
        return None
    return next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)


def source_of(path: str) -> str:
    """Returns the source of documents that name none: the file's name without the suffix."""
    name = path.rsplit("/", 1)[-1]
    return name[: len(name) - len(suffix_of(name) or "")]  # in upper case, too


def read_records(path: str) -> Iterator[Document | Refusal]:
    """Yields every record of the file, in order, each exactly once.

    - `.txt`: the file is one document.
    - `.jsonl`, `.jsonl.gz`: one JSON object a line, with `text` and perhaps `source`. Blank lines
      are no records, though they count as lines. What follows a break in the gzip stream is
      unknown and makes one refusal.
    - `.parquet`: one row a document, columns `text` and perhaps `source`, strings or UTF-8 bytes.

    Without a source (missing, null or blank) it is the file's name without the suffix. A byte
    order mark at the beginning of a file is not part of the text.

    Raises:
        ValueError: The file's name has none of the suffixes.
        OSError: The file cannot be opened or read at all. That is no bad record: the run stops.
    """
    suffix = suffix_of(path.rsplit("/", 1)[-1])
    if suffix is None:
        raise ValueError(f"{path}: cannot read this format, only {', '.join(SUFFIXES)}")
    source = source_of(path)
    if suffix == ".parquet":
        yield from _read_parquet(path, source)
        return
    # Beam's own decompression takes a truncated gzip file for a whole one; Python's notices.
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        if suffix == ".txt":
            yield _read_text(path, file.read(), source)
        elif suffix == ".jsonl":
            yield from _read_json_lines(path, file, source)
        else:
            with gzip.GzipFile(fileobj=file, mode="rb") as unzipped:
                yield from _read_json_lines(path, cast(BinaryIO, unzipped), source)


def _read_text(path: str, content: bytes, source: str) -> Document | Refusal:
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return _check(path, 1, {"text": content.decode("utf-8")}, source, content)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return _refuse(path, line, _describe(error), content)


def _read_json_lines(path: str, file: BinaryIO, source: str) -> Iterator[Document | Refusal]:
    line = 0
    while True:
        line += 1
        try:
            content = file.readline()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            yield _refuse(path, line, f"broken gzip: {error}", b"")
            return
        if not content:
            return
        if line == 1:
            content = content.removeprefix(codecs.BOM_UTF8)
        if content.strip():
            yield _parse_json(path, line, content.rstrip(b"\r\n"), source)


def _parse_json(path: str, line: int, content: bytes, source: str) -> Document | Refusal:
    try:
        fields = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        return _refuse(path, line, _describe(error), content)
    except json.JSONDecodeError as error:
        return _refuse(path, line, f"broken JSON: {error.msg}: column {error.colno}", content)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, "[" 100,000 times
        return _refuse(path, line, f"broken JSON: {error}", content)
    if not isinstance(fields, dict):
        return _refuse(path, line, f"JSON is {_type_name(fields)}, not an object", content)
    return _check(path, line, fields, source, content)


def _read_parquet(path: str, source: str) -> Iterator[Document | Refusal]:
    row, num_rows = 0, 1  # of a file whose footer is broken we know but that it is one
    try:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            metadata = pyarrow.parquet.read_metadata(file)
        num_rows, names = metadata.num_rows, metadata.schema.to_arrow_schema().names
        reason = "the Parquet reader did not deliver this row"
        if "text" not in names:
            reason = f'no column "text", only {", ".join(names)}'
        else:
            for table in _read_row_groups(path, [n for n in ("text", "source") if n in names]):
                for values in zip(*table.columns, strict=True):
                    row += 1
                    fields = dict(zip(table.column_names, values, strict=True))
                    yield _check_row(path, row, fields, source)
    except pyarrow.ArrowException as error:
        reason = f"broken Parquet: {error}"
    except OSError as error:
        if error.errno is not None:  # no permission, no connection: not the data's fault
            raise
        reason = f"broken Parquet: {error}"
    # Each row that is lost counts, so that the share of refused records is the true one.
    for lost in range(row, num_rows):
        yield _refuse(path, lost + 1, reason, b"")


def _read_row_groups(path: str, columns: list[str]) -> Iterator[pyarrow.Table]:
    """Yields the file's row groups, in order and one at a time, by Beam's own Parquet source.

    We run the source that `ReadFromParquetBatched` holds instead of applying the transform: the
    transform says neither which row it is at nor, when a page is broken, in which file.
    """
    transform = beam.io.ReadFromParquetBatched(glob.escape(path), validate=False, columns=columns)
    for bundle in transform._source.split(float("inf")):
        yield from bundle.source.read(bundle.source.get_range_tracker(None, None))


def _check_row(
    path: str, row: int, values: dict[str, pyarrow.Scalar], source: str
) -> Document | Refusal:
    fields = {}
    try:
        for name, value in values.items():
            field = value.as_py()
            fields[name] = field.decode("utf-8") if isinstance(field, bytes) else field
    except UnicodeDecodeError as error:
        return _refuse(path, row, _describe(error), error.object)
    return _check(path, row, fields, source, fields.get("text"))


def _check(
    path: str, line: int, fields: dict[str, Any], default_source: str, record: Any
) -> Document | Refusal:
    """Returns the document that the fields make, or which rule they break."""
    if "text" not in fields:
        return _refuse(path, line, 'no "text"', record)
    text, source = fields["text"], fields.get("source")
    if not isinstance(text, str):
        return _refuse(path, line, f'"text" is {_type_name(text)}, not a string', record)
    if source is not None and not isinstance(source, str):
        return _refuse(path, line, f'"source" is {_type_name(source)}, not a string', record)
    if not text.strip():
        return _refuse(path, line, 'empty "text"', record)
    for name, value in (("text", text), ("source", source or "")):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:  # JSON's "\ud800" is a string, but no Unicode text
            return _refuse(path, line, f'"{name}" is no Unicode text: {error.reason}', record)
    if len(text) > MOST_BLANKS:
        longest = max((len(run[0]) for run in re.finditer(r"\s+", text)), default=0)
        if longest > MOST_BLANKS:
            reason = f'"text" has {longest:,} blanks in a row, more than {MOST_BLANKS:,}'
            return _refuse(path, line, reason, record)
    return Document(text, source if source and source.strip() else default_source)


def _refuse(path: str, line: int, reason: str, record: Any) -> Refusal:
    start = record[:RECORD_LENGTH] if isinstance(record, (bytes, str)) else record
    return Refusal(path, line, reason, ascii(start)[: 4 * RECORD_LENGTH])


def _describe(error: UnicodeDecodeError) -> str:
    return f"invalid UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}"


def _type_name(value: Any) -> str:
    return "null" if value is None else f"of type {type(value).__name__}"
