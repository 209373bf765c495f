"""Models with a made likelihood for each token, and the documents and Evaluator's run for them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_model_analysis.proto import config_pb2

from components.evaluation import BASELINE, CANDIDATE
from pipeline.beam_config import BeamConfig


class Document(NamedTuple):
    """A transformed example."""

    ids: list[int]
    num_bytes: int
    source: str
    part: str = "new"

    def serialize(self) -> bytes:
        example = tf.train.Example()
        example.features.feature["input_ids"].int64_list.value.extend(self.ids)
        example.features.feature["num_bytes"].int64_list.value.append(self.num_bytes)
        example.features.feature["source"].bytes_list.value.append(self.source.encode())
        example.features.feature["part"].bytes_list.value.append(self.part.encode())
        return example.SerializeToString()


class TokenTable(tf.Module):
    """A model whose -log p of a token is in a table; it has the signature `evaluate`."""

    def __init__(self, nll: Sequence[float] | np.ndarray) -> None:
        super().__init__()
        self.nll = tf.Variable(nll, dtype=tf.float64)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def evaluate(self, examples):
        features = tf.io.parse_example(
            examples,
            {
                "input_ids": tf.io.RaggedFeature(tf.int64),
                "num_bytes": tf.io.FixedLenFeature([], tf.int64),
            },
        )
        ids = features["input_ids"]
        return {
            "sum_nll": tf.reduce_sum(tf.gather(self.nll, ids), axis=1),
            "num_tokens": ids.row_lengths(),
            "num_bytes": features["num_bytes"],
        }


def write_documents(path: Path, documents: Sequence[Document]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for document in documents:
            writer.write(document.serialize())
    return str(path)


def export(nll: Sequence[float] | np.ndarray, folder: Path, stride: int = 16) -> str:
    """Writes the model as one that was pushed; it has no context, but says that it has a stride."""
    model = TokenTable(nll)
    tf.saved_model.save(model, str(folder), signatures={"evaluate": model.evaluate})
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "gpt2.json").write_text(json.dumps({"stride": stride}))
    return str(folder)


def evaluate(
    folder: Path,
    eval_config: config_pb2.EvalConfig,
    documents: Sequence[Document],
    candidate: Sequence[float] | np.ndarray,
    baseline: Sequence[float] | np.ndarray,
) -> str:
    """Runs TFMA on two models, as TFX's Evaluator does, and returns its output's folder."""
    models = [
        tfma.default_eval_shared_model(
            export(nll, folder / name), model_name=name, eval_config=eval_config
        )
        for name, nll in ((CANDIDATE, candidate), (BASELINE, baseline))
    ]
    tfma.run_model_analysis(
        models,
        eval_config=eval_config,
        data_location=write_documents(folder / "examples.tfrecord", documents),
        output_path=str(folder / "evaluation"),
        pipeline_options=PipelineOptions(BeamConfig().arguments()),
    )
    return str(folder / "evaluation")
