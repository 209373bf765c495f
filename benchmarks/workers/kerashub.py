"""One step of training with KerasHub's GPT-2, compiled as its users do, on TensorFlow.

    python -m benchmarks.workers.kerashub BATCH CONTEXT

Run by the Python of the environment `kerashub`. `jit_compile` stays as Keras chooses it: where
there is but a CPU, without XLA, with which this step was a tenth slower.
"""

import os
import sys

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import keras_hub
import numpy as np

from benchmarks.workers import CLIP_NORM, DROPOUT, VOCAB_SIZE, serve


def main() -> None:
    """Builds the model and serves its step."""
    batch, context = map(int, sys.argv[1:])
    model = gpt2_small(dropout=DROPOUT)
    model.compile(
        optimizer=keras.optimizers.AdamW(6e-4, global_clipnorm=CLIP_NORM),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=None,
    )
    print(f"jit_compile is {model.jit_compile}", file=sys.stderr)
    generator = np.random.default_rng(0)

    def step() -> None:
        ids = generator.integers(VOCAB_SIZE, size=[batch, context + 1]).astype(np.int32)
        inputs = {"token_ids": ids[:, :-1], "padding_mask": np.ones([batch, context], np.int32)}
        model.train_on_batch(inputs, ids[:, 1:])

    serve(step)


def gpt2_small(dropout: float) -> keras_hub.models.GPT2CausalLM:
    """Returns KerasHub's GPT-2 124M with random weights."""
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=VOCAB_SIZE,
        num_layers=12,
        num_heads=12,
        hidden_dim=768,
        intermediate_dim=3072,
        dropout=dropout,
        max_sequence_length=1024,
    )
    return keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)


if __name__ == "__main__":
    main()
