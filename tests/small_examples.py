"""Files of transformed examples."""

from pathlib import Path

import tensorflow as tf


def write_examples(
    path: Path,
    documents: list[list[int]],
    num_bytes: list[int] | None = None,
) -> str:
    """Writes transformed examples as Transform does: TFRecords of all features."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for ids, length in zip(documents, num_bytes or [1] * len(documents), strict=True):
            example = tf.train.Example()
            example.features.feature["input_ids"].int64_list.value.extend(ids)
            example.features.feature["num_bytes"].int64_list.value.append(length)
            example.features.feature["source"].bytes_list.value.append(b"play")
            example.features.feature["part"].bytes_list.value.append(b"new")
            writer.write(example.SerializeToString(deterministic=True))
    return str(path)
