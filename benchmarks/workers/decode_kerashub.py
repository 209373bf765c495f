"""Greedy decoding with KerasHub's GPT-2 124M on TensorFlow, as its users write it.

    python -m benchmarks.workers.decode_kerashub BATCH

Run by the Python of the environment `kerashub`; random weights. `jit_compile` stays as Keras
chooses it: where there is but a CPU, without XLA, with which one row was a few percent slower.
"""

import sys

import numpy as np

from benchmarks.workers import DROPOUT, VOCAB_SIZE, serve
from benchmarks.workers.decoding_task import NEW_TOKENS, PROMPT_TOKENS
from benchmarks.workers.kerashub import gpt2_small


def main() -> None:
    """Builds the model and serves one call of its `generate`."""
    batch = int(sys.argv[1])
    model = gpt2_small(dropout=DROPOUT)
    model.compile(sampler="greedy")
    length = PROMPT_TOKENS + NEW_TOKENS
    ids = np.zeros([batch, length], np.int32)
    prompts = np.random.default_rng(0).integers(VOCAB_SIZE - 1, size=[batch, PROMPT_TOKENS])
    ids[:, :PROMPT_TOKENS] = prompts
    is_prompt = np.broadcast_to(np.arange(length) < PROMPT_TOKENS, ids.shape).astype(np.int32)
    inputs = {"token_ids": ids, "padding_mask": is_prompt}

    def step() -> None:
        answer = model.generate(inputs, stop_token_ids=None)
        if np.shape(answer["token_ids"]) != (batch, length):
            raise RuntimeError(f"expected rows of {length} tokens, got {answer['token_ids']}")

    serve(step)


if __name__ == "__main__":
    main()
