"""model/graph_tokenizer.py against tiktoken."""

import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from data.prepare import prepare
from model.graph_tokenizer import GraphTokenizer
from model.tokenizer import gpt2_encoding
from tests.fuzzed_texts import fuzzed_texts

ROOT = Path(__file__).parents[1]
CHARACTERS = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]


@pytest.fixture(scope="module")
def tokenizer():
    return GraphTokenizer()


def assert_is_tiktokens(tokenizer, texts):
    """Compares all texts in one batch; shows the first that differs."""
    wanted = [gpt2_encoding().encode_ordinary(text.decode(errors="replace")) for text in texts]
    ids = tokenizer.encode(tf.constant(texts, tf.string))
    assert ids.dtype == tf.int32
    splits = np.cumsum([0, *map(len, wanted)])
    flat = np.fromiter(itertools.chain.from_iterable(wanted), np.int32)
    if np.array_equal(ids.row_splits, splits) and np.array_equal(ids.flat_values, flat):
        return
    for text, found, ids_of_text in zip(texts, ids.to_list(), wanted, strict=True):
        assert found == ids_of_text, text
    raise AssertionError("the rows differ, but no text was found whose row does")


def decode(tokenizer, rows):
    ids = tf.ragged.constant(rows, tf.int32, ragged_rank=1)
    return tokenizer.decode(ids.to_tensor(), tf.cast(ids.row_lengths(), tf.int32)).numpy().tolist()


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world", [15496, 995]),
        ("To be, or not to be", [2514, 307, 11, 393, 407, 284, 307]),
        ("\n", [198]),
        ("", []),
        ("é", [2634]),
        ("😀", [47249, 222]),
        ("a<|endoftext|>b", [64, 27, 91, 437, 1659, 5239, 91, 29, 65]),
    ],
)
def test_text_becomes_the_ids_that_gpt2_is_known_for(tokenizer, text, ids):
    assert tokenizer.encode([text]).to_list() == [ids]
    assert decode(tokenizer, [ids]) == [text.encode()]


@pytest.mark.parametrize("seed", range(20))
def test_fuzzed_texts_get_tiktokens_ids(tokenizer, seed):
    assert_is_tiktokens(tokenizer, list(fuzzed_texts(10_000, seed)))


def test_each_character_alone_gets_tiktokens_ids(tokenizer):
    assert_is_tiktokens(tokenizer, [character.encode() for character in CHARACTERS])


def test_each_character_between_others_gets_tiktokens_ids(tokenizer):
    around = "a{0}1 {0}'s"
    texts = [around.format(character) for character in CHARACTERS]
    # A line feed before a letter is a match alone.
    joined = ["\n".join(texts[first : first + 256]) for first in range(0, len(texts), 256)]
    assert_is_tiktokens(tokenizer, [text.encode() for text in joined])


def test_all_text_of_the_project_gets_tiktokens_ids(tokenizer):
    files = [*ROOT.glob("data/sample/*"), *ROOT.glob("*/*.py"), ROOT / "README.md"]
    assert_is_tiktokens(tokenizer, [file.read_bytes() for file in files])


def test_the_whole_shakespeare_corpus_gets_tiktokens_ids(tokenizer, tmp_path):
    """Needs the network: the corpus is fetched."""
    corpus = prepare("shakespeare", tmp_path / "shakespeare")
    lines = [line for path in corpus.folder.glob("*.jsonl") for line in path.open()]
    assert len(lines) == 1432
    assert_is_tiktokens(tokenizer, [json.loads(line)["text"].encode() for line in lines])


def test_all_short_strings_of_bytes_at_utf8s_borders_are_read_as_python_reads_them(tokenizer):
    borders = bytes.fromhex("00 41 7f 80 8f 90 9f a0 bf c1 c2 df e0 e1 ed ef f0 f1 f4 f5 ff")
    assert_is_tiktokens(
        tokenizer,
        [bytes(text) for size in (1, 2, 3) for text in itertools.product(borders, repeat=size)],
    )


@pytest.mark.parametrize(
    "unit", [b"a", b"ha", b" ", b"\n", b"-", "😀👍🏽".encode(), "ÃÂ".encode(), b" 's", b"\xf0\x9f"]
)
def test_a_very_long_text_of_one_thing_gets_tiktokens_ids(tokenizer, unit):
    many = unit * (100_000 // len(unit))
    assert_is_tiktokens(tokenizer, [many, b"b" + many, many + b"b"])


@pytest.mark.parametrize(
    "letters", [b"abcdefghijklmnopqrstuvwxyz", b"north", b"one", bytes(range(256))]
)
def test_a_very_long_text_of_random_letters_gets_tiktokens_ids(tokenizer, letters):
    assert_is_tiktokens(tokenizer, [bytes(random.Random(0).choices(letters, k=100_000))])


def test_a_batch_gives_each_text_what_it_gets_alone(tokenizer):
    # They would go together: a contraction, a run of spaces, one word, one character.
    texts = [b"I", b"'", b"re", b"", b"a ", b" b", b"He", b"llo", b"\xf0\x9f", b"\x98\x80", b""]
    alone = [tokenizer.encode([text])[0].numpy().tolist() for text in texts]
    assert tokenizer.encode(texts).to_list() == alone


def test_no_texts_give_no_rows(tokenizer):
    assert tokenizer.encode(tf.constant([], tf.string)).to_list() == []
    assert decode(tokenizer, []) == []


def test_tokens_become_exactly_their_bytes(tokenizer):
    encoding = gpt2_encoding()
    # Each token once, and rows of random tokens: most of them break characters apart.
    mixed = np.random.default_rng(0).permutation(50257).tolist()
    rows = [[token] for token in mixed]
    rows += [mixed[first : first + 50] for first in range(0, len(mixed), 50)] + [[]]
    assert decode(tokenizer, rows) == [encoding.decode_bytes(row) for row in rows]


def test_what_stands_beyond_a_rows_length_is_ignored(tokenizer):
    ids = [[15496, 995, -1], [995, 60000, 995]]
    assert tokenizer.decode(ids, [2, 1]).numpy().tolist() == [b"Hello world", b" world"]


@pytest.mark.parametrize("wrong", [-1, 50257, 2**31 - 1])
def test_an_id_outside_the_vocabulary_is_an_error_that_names_it(tokenizer, wrong):
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"0 to 50256(.|\n)*{wrong}"):
        tf.function(tokenizer.decode)(tf.constant([[1, 2], [3, wrong]]), tf.constant([2, 2]))
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"0 to 50256(.|\n)*{wrong}"):
        tokenizer.token_bytes(tf.constant([1, wrong]))


@pytest.mark.parametrize("wrong", [-1, 4])
def test_a_length_that_the_row_does_not_have_is_an_error_that_names_it(tokenizer, wrong):
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"from 0(.|\n)*{wrong}"):
        tokenizer.decode(tf.constant([[1, 2, 3]]), tf.constant([wrong]))


def test_the_bytes_of_tokens_have_the_shape_of_their_ids(tokenizer):
    ids = tf.constant([[15496, 995], [50256, 222]])
    assert tokenizer.token_bytes(ids).numpy().tolist() == [
        [b"Hello", b" world"],
        [b"<|endoftext|>", b"\x80"],
    ]


class Saved(tf.Module):
    """The tokenizer with signatures, as the exported model has them."""

    def __init__(self, tokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def encode(self, texts):
        ids = self.tokenizer.encode(texts)
        return {"ids": ids.to_tensor(), "lengths": tf.cast(ids.row_lengths(), tf.int32)}

    @tf.function(
        input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)]
    )
    def decode(self, ids, lengths):
        return {"texts": self.tokenizer.decode(ids, lengths)}


USE_SAVED = """
import sys
import tensorflow as tf
signatures = tf.saved_model.load(sys.argv[1]).signatures
rows = signatures["encode"](texts=tf.constant(["I'll go", "", "naïve 😀"]))
print(rows["ids"].numpy().tolist(), rows["lengths"].numpy().tolist())
print([text.decode() for text in signatures["decode"](**rows)["texts"].numpy()])

# In a session, as TF Serving runs a model.
v1 = tf.compat.v1
with v1.Session(graph=tf.Graph()) as session:
    signature = v1.saved_model.loader.load(session, ["serve"], sys.argv[1]).signature_def["encode"]
    feed = {signature.inputs["texts"].name: ["I'll go"]}
    print(session.run(signature.outputs["ids"].name, feed).tolist())
"""


def test_a_saved_tokenizer_needs_nothing_but_tensorflow(tokenizer, tmp_path):
    module = Saved(tokenizer)
    signatures = {"encode": module.encode, "decode": module.decode}
    tf.saved_model.save(module, tmp_path, signatures)
    graph = (
        SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    )
    nodes = [*graph.node, *(node for one in graph.library.function for node in one.node_def)]
    used = {node.op for node in nodes}
    assert {"UnicodeDecode", "LowerBound"} <= used
    assert not [name for name in used if "PyFunc" in name]

    # In another folder, so that nothing of the project can be imported.
    command = [sys.executable, "-c", USE_SAVED, str(tmp_path)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert not run.returncode, run.stderr
    assert run.stdout.splitlines() == [
        "[[40, 1183, 467, 0], [0, 0, 0, 0], [2616, 38776, 30325, 222]] [3, 0, 4]",
        "[\"I'll go\", '', 'naïve 😀']",
        "[[40, 1183, 467]]",
    ]
