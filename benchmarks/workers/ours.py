"""One step of our training, as configured by default but for the options and what all share.

python -m benchmarks.workers.ours BATCH CONTEXT [--plain-loss] [--document-mask] [--no-xla]
    [--return-memory] [--recompute {none,attention,block}] [--bfloat16] [--average]
"""

import argparse
import os
from typing import get_args

import numpy as np
import tensorflow as tf

from benchmarks.workers import CLIP_NORM, DROPOUT, VOCAB_SIZE, serve
from model import gradients
from model.compilation import Compilation
from model.config import GPT2Config
from model.strategy import make_strategy
from model.train_step import TrainStep
from model.training_config import Recompute, TrainingConfig


def main() -> None:
    """Builds the step and serves it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("batch", type=int)
    parser.add_argument("context", type=int)
    for option in (
        "--plain-loss",
        "--document-mask",
        "--no-xla",
        "--return-memory",
        "--bfloat16",
        "--average",
    ):
        parser.add_argument(option, action="store_true")
    parser.add_argument("--recompute", choices=get_args(Recompute), default="none")
    options = parser.parse_args()

    if options.plain_loss:  # no option of the product, which has no use for it
        gradients.summed_cross_entropy = plain_cross_entropy
    if options.return_memory:
        os.environ["TF_CPU_ALLOCATOR_USE_BFC"] = "0"
    config = TrainingConfig(
        steps=1000,
        global_batch_size=options.batch,
        gradient_clip_norm=CLIP_NORM,
        recompute=options.recompute,
        precision="mixed_bfloat16" if options.bfloat16 else "float32",
        document_mask=options.document_mask,
        average_decay=0.999 if options.average else None,
        xla=not options.no_xla,
    )
    train_step = TrainStep(GPT2Config(dropout=DROPOUT), config, make_strategy(config.strategy))
    generator = np.random.default_rng(0)
    weights = np.ones([options.batch, options.context], np.float32)

    def step() -> None:
        ids = generator.integers(VOCAB_SIZE, size=[options.batch, options.context + 1])
        train_step.update(ids.astype(np.int32), weights)

    serve(step)


def plain_cross_entropy(
    hidden_BTD: tf.Tensor,
    embedding_VD: tf.Tensor,
    targets_BT: tf.Tensor,
    weights_BT: tf.Tensor,
    chunk_size: int = 512,
    vocab_multiple: int = 1,
    compilation: Compilation = "none",
) -> tf.Tensor:
    """Stands in for `summed_cross_entropy`; holds the logits of all positions at once."""
    logits_BTV = tf.matmul(hidden_BTD, embedding_VD, transpose_b=True)
    nll_BT = tf.nn.sparse_softmax_cross_entropy_with_logits(targets_BT, logits_BTV)
    return tf.reduce_sum(nll_BT * weights_BT)


if __name__ == "__main__":
    main()
