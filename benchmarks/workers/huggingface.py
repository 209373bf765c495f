"""One step of training with Hugging Face's GPT-2 on PyTorch, as its users write it.

    python -m benchmarks.workers.huggingface BATCH CONTEXT [--bfloat16]

Run by the Python of the environment `huggingface`. Attention is the library's default,
PyTorch's fused one; so is AdamW's fused kernel taken. Mixed precision is PyTorch's `autocast`.
"""

import sys

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.workers import CLIP_NORM, DROPOUT, VOCAB_SIZE, serve


def main() -> None:
    """Builds the model and serves its step."""
    batch, context = map(int, sys.argv[1:3])
    in_16_bits = torch.autocast("cpu", torch.bfloat16, enabled="--bfloat16" in sys.argv[3:])
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB_SIZE, embd_pdrop=DROPOUT, attn_pdrop=DROPOUT, resid_pdrop=DROPOUT
    )
    model = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, fused=True)
    generator = np.random.default_rng(0)

    def step() -> None:
        ids = torch.from_numpy(generator.integers(VOCAB_SIZE, size=[batch, context]))
        optimizer.zero_grad()
        with in_16_bits:
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        loss.item()

    serve(step)


if __name__ == "__main__":
    main()
