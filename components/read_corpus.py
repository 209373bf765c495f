"""ReadCorpus: the user's files become raw examples, bad records become dead letters."""

import os
from collections.abc import Iterator, Mapping

import apache_beam as beam
import tensorflow as tf

from components.corpus_counts import REFUSED, count_elements
from components.records import Document, Refusal, read_records


class ReadCorpus(beam.PTransform):
    """Reads the documents of the files as examples; refusals and counts are written on the way.

    Args:
        files: The paths of each part's files.
        folder: Where refusals and counts go.

    One worker reads a file from beginning to end, because line numbers must be right and gzip can
    be read no other way. So a corpus wants several files, as many as workers at least; and no
    more than some 100,000, since their names travel in the pipeline's description.
    """

    def __init__(self, files: Mapping[str, list[str]], folder: str):
        super().__init__()
        self._files = files
        self._folder = folder

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Returns the examples."""
        paths = [(part, path) for part, paths in self._files.items() for path in paths]
        records = (
            pipeline
            | "Files" >> beam.Create(paths, reshuffle=True)
            | "Read" >> beam.FlatMapTuple(_read_records)
        )
        documents = records | "Documents" >> beam.Filter(
            lambda record: isinstance(record[1], Document)
        ).with_output_types(tuple[str, Document])
        refusals = records | "Refusals" >> beam.Filter(
            lambda record: isinstance(record[1], Refusal)
        ).with_output_types(tuple[str, Refusal])

        count_elements({"read": records, "refused": refusals}, self._folder, "read")
        refused = os.path.join(self._folder, REFUSED)
        _ = (
            refusals
            | "RefusalToJson" >> beam.MapTuple(lambda part, refusal: refusal.to_json())
            | "WriteRefused" >> beam.io.WriteToText(refused, num_shards=1, shard_name_template="")
        )
        return documents | "ToExample" >> beam.MapTuple(_to_example).with_output_types(
            tf.train.Example
        )


def _read_records(part: str, path: str) -> Iterator[tuple[str, Document | Refusal]]:
    for record in read_records(path):
        yield part, record


def _to_example(part: str, document: Document) -> tf.train.Example:
    def feature(value: str) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode("utf-8")]))

    features = {
        "text": feature(document.text),
        "source": feature(document.source),
        "part": feature(part),
    }
    return tf.train.Example(features=tf.train.Features(feature=features))
