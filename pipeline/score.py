"""How well a model predicts texts: the figures of the Evaluator, for any model and any files."""

import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from components.preprocessing import encode_batch
from components.records import Document, Refusal, read_records, source_of
from model.export import read_stride
from model.gpt2 import GPT2
from model.pretrained import is_exported_model, load_pretrained
from model.scoring import document_nll
from model.tokenizer import VOCAB_SIZE

_DOCUMENTS_AT_A_TIME = 16


@dataclasses.dataclass(frozen=True)
class Score:
    """Sums over documents, and what follows from them.

    Args:
        documents: How many.
        tokens: GPT-2's, each document's `<|endoftext|>` counted.
        num_bytes: The texts' length in UTF-8.
        nll: -log p of all tokens, nats.
    """

    documents: int = 0
    tokens: int = 0
    num_bytes: int = 0
    nll: float = 0.0

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.documents + other.documents,
            self.tokens + other.tokens,
            self.num_bytes + other.num_bytes,
            self.nll + other.nll,
        )

    @property
    def perplexity(self) -> float:
        """exp(nll / tokens); infinite where no float can hold it."""
        with np.errstate(over="ignore"):
            return float(np.exp(self.nll / self.tokens))

    @property
    def bits_per_byte(self) -> float:
        """Nll in bits / bytes."""
        return self.nll / (math.log(2) * self.num_bytes)


def score_files(
    model_folder: str, files: Sequence[str], stride: int | None = None
) -> dict[str, Score]:
    """Returns the score of each source in the files, in order of appearance.

    Documents are read, tokenised and scored as the pipeline does it: see `read_records` and
    `document_nll`.

    Args:
        model_folder: A model that `load_pretrained` reads.
        files: `.txt`, `.jsonl`, `.jsonl.gz` or `.parquet`.
        stride: Tokens that the window moves. If not given, that of the exported model, as in
            its pipeline's evaluation; of published weights, the context.

    Raises:
        ValueError: The model can't be read or has another vocabulary, `stride` is out of range,
            a file is missing or in no such format, a record is no document, or there is none.
    """
    is_exported = is_exported_model(model_folder)
    documents = read_documents(files)
    model = load_pretrained(model_folder, allow_int8=True)
    if model.config.vocab_size != VOCAB_SIZE:
        raise ValueError(
            f"{model_folder} must have GPT-2's vocabulary of {VOCAB_SIZE} ids, "
            f"got {model.config.vocab_size}"
        )
    if stride is None:
        stride = read_stride(model_folder) if is_exported else model.config.max_length
    scorer = _scorer(model, stride)

    def score_texts(texts: list[str]) -> Iterator[tuple[int, float]]:
        ids, lengths = encode_batch(np.array([text.encode() for text in texts], object))
        nll = scorer(tf.RaggedTensor.from_row_lengths(ids, lengths)).numpy()
        return zip(lengths.tolist(), nll.tolist(), strict=True)

    return score_documents(documents, score_texts)


def read_documents(files: Sequence[str]) -> list[Document]:
    """Returns all documents of the files, so that a bad one is told before hours of scoring.

    A document's source is as `read_records` has it, but where files of one name, from several
    folders or of several formats, would be one source, each is named by its path.

    Raises:
        ValueError: A file is missing or in no known format, a record is no document, or there is
            none.
    """
    counts = collections.Counter(map(source_of, set(files)))
    documents = [
        dataclasses.replace(document, source=file)
        if document.source == source_of(file) and counts[document.source] > 1
        else document
        for file in files
        for document in _read(file)
    ]
    if not documents:
        raise ValueError(f"there are no documents in {', '.join(files)}")
    return documents


def score_documents(
    documents: Sequence[Document],
    score_texts: Callable[[list[str]], Iterable[tuple[int, float]]],
    most_documents: int = _DOCUMENTS_AT_A_TIME,
    most_bytes: float = math.inf,
) -> dict[str, Score]:
    """Returns the score of each source, in order of appearance.

    Args:
        documents: What is scored.
        score_texts: Gives the number of tokens and the nll of each of some texts.
        most_documents: It is given no more texts at a time than this.
        most_bytes: Nor more bytes of UTF-8, unless a single text has more.
    """
    scores: dict[str, Score] = {}
    for batch in _batches(documents, most_documents, most_bytes):
        scored = score_texts([document.text for document in batch])
        for document, (tokens, nll) in zip(batch, scored, strict=True):
            score = Score(1, tokens, len(document.text.encode()), nll)
            scores[document.source] = scores.get(document.source, Score()) + score
    return scores


def describe(scores: dict[str, Score]) -> str:
    """Returns a line for each source, and one for all of them if there are several."""
    rows = list(scores.items())
    if len(rows) > 1:
        rows.append(("all", sum(scores.values(), Score())))
    width = max(map(len, ["source", *(name for name, _ in rows)]))
    lines = [f"{'source':<{width}}  documents     tokens      bytes  perplexity  bits per byte"]
    lines += [
        f"{name:<{width}}  {score.documents:>9,}  {score.tokens:>9,}  {score.num_bytes:>9,}  "
        f"{score.perplexity:>10.2f}  {score.bits_per_byte:>13.4f}"
        for name, score in rows
    ]
    return "\n".join(lines)


def _batches(
    documents: Sequence[Document], most_documents: int, most_bytes: float
) -> Iterator[list[Document]]:
    batch: list[Document] = []
    num_bytes = 0
    for document in documents:
        added = len(document.text.encode())
        if batch and (len(batch) == most_documents or num_bytes + added > most_bytes):
            yield batch
            batch, num_bytes = [], 0
        batch.append(document)
        num_bytes += added
    if batch:
        yield batch


def _read(file: str) -> Iterator[Document]:
    if not Path(file).is_file():
        kind = "a folder, not a file" if Path(file).is_dir() else "no such file"
        raise ValueError(f"{file}: {kind}")
    for record in read_records(file):
        if isinstance(record, Refusal):
            raise ValueError(f"{record.file}:{record.line}: {record.reason}")
        yield record


def _scorer(model: GPT2, stride: int) -> tf.types.experimental.PolymorphicFunction:
    return tf.function(
        lambda documents: document_nll(model, documents, stride),
        input_signature=[tf.RaggedTensorSpec([None, None], tf.int64, ragged_rank=1)],
        autograph=False,  # it wraps an error's message in a report of where it was raised
    )
