"""Transform's preprocessing_fn: text becomes GPT-2 tokens."""

# Shapes: B documents of a batch, N tokens of all of them.

import functools
import itertools
import os
from concurrent import futures

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from model.tokenizer import END_OF_TEXT, gpt2_encoding


def preprocessing_fn(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns the transformed example of a raw one.

    Args:
        inputs: `text`, `source` and `part`, string [B, 1].

    Returns:
        `input_ids` int64, sparse [B, (tokens)]: tiktoken's own ids with one `<|endoftext|>` last.
        `num_bytes` int64 [B]: the text's length in UTF-8.
        `source` and `part` string [B].
    """
    text_B = tf.reshape(inputs["text"], [-1])
    # Python in the graph: it can't be served, but it is tiktoken itself. Serving tokenises on its
    # own path.
    ids_N, lengths_B = tft.apply_pyfunc(
        encode_batch, [tf.int64, tf.int64], True, "tiktoken_gpt2", text_B
    )
    ids_N.set_shape([None])
    lengths_B.set_shape([None])
    return {
        "input_ids": tf.RaggedTensor.from_row_lengths(ids_N, lengths_B).to_sparse(),
        "num_bytes": tf.cast(tf.strings.length(text_B, unit="BYTE"), tf.int64),
        "source": tf.reshape(inputs["source"], [-1]),
        "part": tf.reshape(inputs["part"], [-1]),
    }


def encode_batch(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the texts' tokens, joined, with `<|endoftext|>` behind each text.

    Args:
        texts: object [B] of UTF-8 bytes. `<|endoftext|>` in a text is text, never the token.

    Returns:
        int64 [N]: the tokens. int64 [B]: how many each text has, the last one counted.
    """
    # Straight into arrays, for which tiktoken needs no Python lock. Its own encode_ordinary_batch
    # makes lists of Python's ints, one thread at a time, and takes twice as long on two cores.
    # Some texts at a time, as handing over each by itself costs; several parts for each thread, as
    # some are longer than others.
    parts = _threads().map(_encode, np.array_split(texts, 8 * (os.cpu_count() or 1)))
    documents = list(itertools.chain.from_iterable(parts))
    lengths = np.array([len(document) + 1 for document in documents], np.int64)
    ids = np.full(lengths.sum(), END_OF_TEXT, np.int64)
    end = 0
    for document in documents:
        ids[end : end + len(document)] = document
        end += len(document) + 1
    return ids, lengths


@functools.cache
def _threads() -> futures.ThreadPoolExecutor:
    """Returns a thread for each core, kept from batch to batch."""
    return futures.ThreadPoolExecutor(os.cpu_count())


def _encode(texts: np.ndarray) -> list[np.ndarray]:
    encode = functools.partial(gpt2_encoding().encode_to_numpy, disallowed_special=())
    return [encode(text.decode("utf-8")) for text in texts]
