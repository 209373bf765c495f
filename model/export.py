"""The SavedModels that are evaluated and served."""

import functools
import json
import os
from typing import Any

import tensorflow as tf

from model.generation import generate
from model.gpt2 import GPT2
from model.scoring import document_nll
from model.tokenizer import VOCAB_SIZE

# The transformed example: the document's tokens with one `<|endoftext|>` last, and the length of
# its text in UTF-8.
EXAMPLE_FEATURES = {
    "input_ids": tf.io.RaggedFeature(tf.int64),
    "num_bytes": tf.io.FixedLenFeature([], tf.int64),
}

_DESCRIPTION = os.path.join("assets.extra", "gpt2.json")


class DocumentScorer(tf.Module):
    """Gives a SavedModel the signature `evaluate`, which every model here shares.

    It takes `examples`, string [M] of serialized transformed examples, and returns for each
    document `sum_nll` (float64 [M], nats), `num_tokens` and `num_bytes` (int64 [M]): sums, so that
    they add up over any set of documents, and never logits, which would take 200 MB a document.
    """

    def document_nll(self, documents: tf.RaggedTensor) -> tf.Tensor:
        """Returns float64 [M]: the sum of -log p over each document's tokens."""
        raise NotImplementedError

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def evaluate(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        features = tf.io.parse_example(examples, EXAMPLE_FEATURES)
        documents = features["input_ids"]
        return {
            "sum_nll": self.document_nll(documents),
            "num_tokens": tf.cast(documents.row_lengths(), tf.int64),
            "num_bytes": features["num_bytes"],
        }


class ServedGPT2(DocumentScorer):
    """A GPT-2 with the signatures that are served: `serving_default` and `evaluate`.

    Args:
        model: The model.
        stride: How far `evaluate` moves its window, see `document_nll`.
    """

    def __init__(self, model: GPT2, stride: int) -> None:
        super().__init__()
        # TensorFlow tracks its own variables here, not the model: of a Keras variable it would save
        # a copy beside the one that the graph reads, and a model server restores nothing but the
        # copy (keras issue 20095).
        self.weights = [weight.value for weight in model.weights]
        self._generate = functools.partial(generate, model)
        self._document_nll = functools.partial(document_nll, model, stride=stride)

    def document_nll(self, documents: tf.RaggedTensor) -> tf.Tensor:
        return self._document_nll(documents)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int32, name="ids"),
            tf.TensorSpec([None], tf.int32, name="lengths"),
            tf.TensorSpec([None], tf.int32, name="max_new_tokens"),
            tf.TensorSpec([None], tf.float32, name="temperature"),
            tf.TensorSpec([None], tf.int32, name="top_k"),
            tf.TensorSpec([None], tf.float32, name="top_p"),
            tf.TensorSpec([None], tf.int32, name="seed"),
        ]
    )
    def serve(
        self,
        ids: tf.Tensor,
        lengths: tf.Tensor,
        max_new_tokens: tf.Tensor,
        temperature: tf.Tensor,
        top_k: tf.Tensor,
        top_p: tf.Tensor,
        seed: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Continues prompts; the arguments and results are those of `generate`."""
        new_ids, new_lengths = self._generate(
            ids, lengths, max_new_tokens, temperature, top_k, top_p, seed
        )
        return {"ids": new_ids, "lengths": new_lengths}


def export_gpt2(
    model: GPT2, folder: str | os.PathLike[str], stride: int, *, start: str = "scratch"
) -> None:
    """Writes a SavedModel with the signatures of `ServedGPT2` into `folder`.

    `assets.extra/gpt2.json`, which servers ignore, has what the variables alone do not tell:
    `model`, the fields of `GPT2Config`; `stride`, with which it scores; and `start`.

    Args:
        model: The model.
        folder: Where it goes.
        stride: How far `evaluate` moves its window, in tokens, see `document_nll`.
        start: Where the model's training started.

    Raises:
        ValueError: `stride` is out of its range, or the vocabulary is not GPT-2's, whose
            `<|endoftext|>` scoring and generation rely on.
    """
    if model.config.vocab_size != VOCAB_SIZE:
        raise ValueError(
            f"vocab_size must be {VOCAB_SIZE}, the size of GPT-2's vocabulary, for a model to be "
            f"scored or served, got {model.config.vocab_size}"
        )
    served = ServedGPT2(model, stride)
    signatures = {"serving_default": served.serve, "evaluate": served.evaluate}
    tf.saved_model.save(served, os.fspath(folder), signatures=signatures)
    description = {"model": model.config.to_dict(), "stride": stride, "start": start}
    tf.io.gfile.makedirs(os.path.join(folder, os.path.dirname(_DESCRIPTION)))
    with tf.io.gfile.GFile(os.path.join(folder, _DESCRIPTION), "w") as file:
        file.write(json.dumps(description, indent=2) + "\n")


def read_description(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns `model`, `stride` and `start`, as `export_gpt2` wrote them into `folder`.

    Raises:
        ValueError: There is no such description.
    """
    path = os.path.join(folder, _DESCRIPTION)
    try:
        with tf.io.gfile.GFile(path) as file:
            return json.loads(file.read())
    except tf.errors.NotFoundError as error:
        raise ValueError(
            f"{os.fspath(folder)} must be a model that was exported here, but has no {_DESCRIPTION}"
        ) from error


def read_stride(folder: str | os.PathLike[str]) -> int:
    """Returns the stride, in tokens, with which the SavedModel in `folder` scores documents."""
    return int(read_description(folder)["stride"])
