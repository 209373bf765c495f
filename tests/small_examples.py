"""Files of transformed examples."""

from pathlib import Path

import tensorflow as tf


def write_examples(
    path: Path,
    documents: list[list[int]],
    num_bytes: list[int] | None = None,
    is_reversed: bool = False,
) -> str:
    """Writes transformed examples as Transform does: TFRecords of all features.

    Transform writes an example's features in any order, one run in another than the next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for ids, length in zip(documents, num_bytes or [1] * len(documents), strict=True):
            example = tf.train.Example()
            example.features.feature["input_ids"].int64_list.value.extend(ids)
            example.features.feature["num_bytes"].int64_list.value.append(length)
            example.features.feature["source"].bytes_list.value.append(b"play")
            example.features.feature["part"].bytes_list.value.append(b"new")
            names = sorted(example.features.feature, reverse=is_reversed)
            # Messages one after the other are read as one, of all their features.
            writer.write(b"".join(_with_one(example, name) for name in names))
    return str(path)


def _with_one(example: tf.train.Example, name: str) -> bytes:
    feature = {name: example.features.feature[name]}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
