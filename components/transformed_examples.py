"""Reads what Transform wrote."""

import hashlib
import os
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from model.document_scorer import EXAMPLE_FEATURES

_EXAMPLES_AT_A_TIME = 256


def list_files(patterns: Sequence[str]) -> list[str]:
    """Returns the files that match, in order.

    Raises:
        FileNotFoundError: There are none.
    """
    files = sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern))
    if not files:
        raise FileNotFoundError(f"no transformed examples match {list(patterns)}")
    return files


def read_batches(files: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields, for some documents at a time, their tokens, token counts and byte counts.

    Yields:
        int64 [N]: the documents' tokens, joined. int64 [M]: how many each has. int64 [M]: the
        length of each text in UTF-8.
    """
    records = tf.data.TFRecordDataset(files)
    for examples in records.batch(_EXAMPLES_AT_A_TIME):
        features = tf.io.parse_example(examples, EXAMPLE_FEATURES)
        documents = features["input_ids"]
        yield (
            documents.values.numpy(),
            documents.row_lengths().numpy(),
            features["num_bytes"].numpy(),
        )


def fingerprint(files: Sequence[str]) -> str:
    """Returns a digest of names and contents of files.

    That of transformed examples is another one when Transform runs again on the same documents,
    as the order of an example's features is by chance.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{os.path.basename(file)} {tf.io.gfile.stat(file).length}\n".encode())
        with tf.io.gfile.GFile(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
