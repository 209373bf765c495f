"""Runs of CorpusExampleGen, by its driver and executor alone or under TFX, and what they leave."""

import hashlib
import itertools
import json
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from tfx.orchestration import metadata
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

from components.example_gen import Driver, Executor, corpus_example_gen
from pipeline.beam_config import BeamConfig

BEAM = BeamConfig().arguments()
RUNS = itertools.count(1)


class Run(NamedTuple):
    """What a run left behind: for each split, the (text, source) of each example.

    `old` has the texts of those examples, of either split, that say they are of an earlier span.
    """

    counts: dict
    train: list[tuple[str, str]]
    eval: list[tuple[str, str]]
    old: list[str]
    uri: str


def exec_properties(*args, **kwargs) -> dict:
    """The component's properties as the launcher passes them on: messages in JSON."""
    properties = corpus_example_gen(*args, **kwargs).spec.exec_properties
    return {
        key: proto_utils.proto_to_json(value) if hasattr(value, "DESCRIPTOR") else value
        for key, value in properties.items()
    }


def run(folder: Path, **kwargs) -> Run:
    """The driver's and the executor's work on the folder, without the rest of TFX."""
    properties = exec_properties(str(folder), **kwargs)
    properties = Driver(None).resolve_exec_properties(properties, None, None)
    examples = standard_artifacts.Examples()
    examples.uri = f"{folder}-examples/{next(RUNS)}"  # a folder of its own, as TFX gives each run
    Executor(Executor.Context(beam_pipeline_args=BEAM)).Do({}, {"examples": [examples]}, properties)
    assert json.loads(examples.split_names) == ["train", "eval"]
    counts = json.loads(Path(examples.uri, "counts.json").read_text())
    examples_of = {name: read_split(examples.uri, name) for name in ("train", "eval")}
    train, evaluation = (
        [(example["text"], example["source"]) for example in examples_of[name]]
        for name in ("train", "eval")
    )
    old = [
        example["text"]
        for examples in examples_of.values()
        for example in examples
        if example["part"] != "new"
    ]
    return Run(counts, train, evaluation, old, examples.uri)


def read_split(uri: str, name: str) -> list[dict[str, str]]:
    """The features of each example, of which each has all three."""
    files = sorted(str(path) for path in Path(uri, f"Split-{name}").iterdir())
    examples = []
    for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        example = {}
        for feature in features:
            (value,) = features[feature].bytes_list.value
            example[feature] = value.decode()
        assert set(example) == {"text", "source", "part"}
        assert example["part"] in ("new", "old")
        examples.append(example)
    return examples


def write_lines(path: Path, texts: list[str], source: str = "s") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text, "source": source}) + "\n" for text in texts]
    path.write_text("".join(lines))


def numbered(*numbers: int) -> list[str]:
    return [f"document {number}" for number in numbers]


def bucket(text: str) -> int:
    """The hash bucket of 1,000 that a text of at most 123 bytes falls into, from first principles.

    TFX hashes the feature's protobuf encoding: field 1 (the bytes list), in it field 1 (a value).
    """
    content = text.encode()
    encoded = bytes([0x0A, len(content) + 2, 0x0A, len(content)]) + content
    return int(hashlib.sha256(encoded).hexdigest(), 16) % 1000


def run_pipeline(folder: Path, **kwargs) -> None:
    LocalDagRunner().run(
        tfx_pipeline.Pipeline(
            pipeline_name="test",
            pipeline_root=f"{folder}-root",
            metadata_connection_config=metadata.sqlite_metadata_connection_config(f"{folder}.db"),
            components=[corpus_example_gen(str(folder), **kwargs)],
            enable_cache=True,
            beam_pipeline_args=BEAM,
        )
    )
