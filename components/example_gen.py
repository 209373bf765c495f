"""CorpusExampleGen: a folder of texts becomes raw examples in the splits `train` and `eval`.

    {"text": bytes, "source": bytes}, both of one value; see components/records.py for the formats.

What is no document goes to a dead-letter file and is counted. The examples' folder gets
`counts.json` and `refused.jsonl`, a Refusal in JSON a line. TFX deletes that folder when a
component fails, so then both are copied to the report folder first, and the error names it.
"""

import json
import os
from typing import Any

import apache_beam as beam
import tensorflow as tf
from google.protobuf import json_format, struct_pb2
from tfx.components.example_gen import driver
from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils
from tfx.utils import proto_utils

from components.code_version import code_digest
from components.corpus_counts import (
    COUNTS,
    REFUSED,
    check_counts,
    copy_report,
    count_elements,
    read_counts,
)
from components.records import SUFFIXES, Document, Refusal, read_records, suffix_of

# So many hash buckets that eval_share has three digits.
BUCKETS = 1000


def corpus_example_gen(
    input_base: str,
    eval_share: float = 0.1,
    max_refused_share: float = 0.001,
    spans: bool = False,
    report_dir: str | None = None,
) -> "CorpusExampleGen":
    """Returns the component that reads the user's folder of texts.

    A document's split depends on a hash of its text alone: it stays in its split when documents
    are added, and copies of it are never in both.

    Args:
        input_base: The folder of `.txt`, `.jsonl`, `.jsonl.gz` and `.parquet` files.
        eval_share: Which share of the documents to evaluate on, in steps of 0.001.
        max_refused_share: The run fails when a larger share of the records is refused.
        spans: Read `input_base/span-<number>/` with the greatest number, not `input_base` itself.
        report_dir: Where counts and dead letters go as well, in any case; without it, beside the
            examples' folder, if the run fails.

    Raises:
        ValueError: A share is out of range, or the folder's name is a pattern.
    """
    # TFX's driver globs it: it would find no files, and a change of the data would go unnoticed.
    if set(input_base) & set("*?[]"):
        raise ValueError(f"input_base is {input_base!r}, must have none of * ? [ ] in it")
    if not 1 / BUCKETS <= eval_share <= 1 - 1 / BUCKETS:
        raise ValueError(f"eval_share is {eval_share}, must be from 0.001 to 0.999")
    if not 0 <= max_refused_share <= 1:
        raise ValueError(f"max_refused_share is {max_refused_share}, must be from 0 to 1")

    settings = struct_pb2.Struct()
    settings.update(
        {
            "max_refused_share": max_refused_share,
            "eval_share": eval_share,
            "code": code_digest(),
        }
    )
    if report_dir is not None:
        settings.update({"report_dir": report_dir})
    custom_config = example_gen_pb2.CustomConfig()
    # Deterministic, because TFX's cache key covers these bytes.
    custom_config.custom_config.Pack(settings, deterministic=True)

    pattern = "span-{SPAN}/*" if spans else "*"
    eval_buckets = round(eval_share * BUCKETS)
    splits = [("train", BUCKETS - eval_buckets), ("eval", eval_buckets)]
    return CorpusExampleGen(
        input_base=input_base,
        input_config=example_gen_pb2.Input(
            splits=[example_gen_pb2.Input.Split(name="corpus", pattern=pattern)]
        ),
        output_config=example_gen_pb2.Output(
            split_config=example_gen_pb2.SplitConfig(
                splits=[
                    example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=buckets)
                    for name, buckets in splits
                ],
                partition_feature_name="text",
            )
        ),
        custom_config=custom_config,
    )


class Driver(driver.FileBasedDriver):
    """Finds the newest span, and says which folder it looked in when there is none."""

    def resolve_exec_properties(
        self, exec_properties: dict[str, Any], pipeline_info: Any, component_info: Any
    ) -> dict[str, Any]:
        input_base = exec_properties["input_base"]
        try:
            resolved = super().resolve_exec_properties(
                exec_properties, pipeline_info, component_info
            )
        except ValueError as error:
            raise ValueError(
                f"input_base {input_base!r} has no folder span-<number> with files in it: {error}"
            ) from error
        folder = _input_folder(resolved)
        if resolved["span"] and not fileio.isdir(folder):
            # TFX reads 7 from "span-007" and then looks for "span-7" (tfx/components/example_gen/
            # utils.py, _make_zero_padding_spec_value).
            raise ValueError(
                f"input_base {input_base!r}: the newest span is {resolved['span']}, but there is "
                f"no folder {folder!r}; a span's number is written without leading zeros"
            )
        return resolved


class Executor(BaseExampleGenExecutor):
    """Reads documents, writes them by split, counts all that it read."""

    def GetInputSourceToExamplePTransform(self) -> Any:  # noqa: N802
        """Returns what makes the transform that reads the files found by `Do`."""
        return lambda exec_properties, pattern: ReadCorpus(self._files, self._examples_uri)

    def GenerateExamplesByBeam(  # noqa: N802
        self, pipeline: beam.Pipeline, exec_properties: dict[str, Any]
    ) -> dict[str, beam.PCollection]:
        """Returns the examples of each split, and has them counted by source."""
        splits = super().GenerateExamplesByBeam(pipeline, exec_properties)
        count_elements(splits, self._examples_uri, "written")
        return splits

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list],
        output_dict: dict[str, list],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the examples, `counts.json` and `refused.jsonl`.

        Raises:
            ValueError: The folder is missing or holds no documents, too large a share of the
                records is refused, or a split is empty. The message has the counts.
        """
        settings = _read_settings(exec_properties)
        folder = _input_folder(exec_properties)
        self._examples_uri = artifact_utils.get_single_instance(output_dict["examples"]).uri
        self._files, ignored = _list_files(folder)

        super().Do(input_dict, output_dict, exec_properties)

        counts = read_counts(self._examples_uri, ["train", "eval"])
        counts.update(files=len(self._files), ignored_files=ignored)
        with fileio.open(os.path.join(self._examples_uri, COUNTS), "w") as file:
            file.write(json.dumps(counts, indent=2) + "\n")
        report_folder = settings.get("report_dir") or self._examples_uri.rstrip("/") + "-refused"
        try:
            check_counts(counts, settings, folder, self._examples_uri, report_folder)
        except (ValueError, RuntimeError):
            copy_report(self._examples_uri, report_folder)
            raise
        if "report_dir" in settings:
            copy_report(self._examples_uri, report_folder)


class CorpusExampleGen(FileBasedExampleGen):
    """TFX's FileBasedExampleGen with the executor above; `corpus_example_gen` makes it."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver


class ReadCorpus(beam.PTransform):
    """Reads the documents of the files as examples; refusals and counts are written on the way.

    One worker reads a file from beginning to end, because line numbers must be right and gzip can
    be read no other way. So a corpus wants several files, as many as workers at least; and no
    more than some 100,000, since their names travel in the pipeline's description.
    """

    def __init__(self, files: list[str], folder: str):
        super().__init__()
        self._files = files
        self._folder = folder

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Returns the examples."""
        records = (
            pipeline
            | "Files" >> beam.Create(self._files, reshuffle=True)
            | "Read" >> beam.FlatMap(read_records)
        )
        documents = records | "Documents" >> beam.Filter(
            lambda record: isinstance(record, Document)
        ).with_output_types(Document)
        refusals = records | "Refusals" >> beam.Filter(
            lambda record: isinstance(record, Refusal)
        ).with_output_types(Refusal)

        count_elements({"read": records, "refused": refusals}, self._folder, "read")
        refused = os.path.join(self._folder, REFUSED)
        _ = (
            refusals
            | "RefusalToJson" >> beam.Map(Refusal.to_json)
            | "WriteRefused" >> beam.io.WriteToText(refused, num_shards=1, shard_name_template="")
        )
        return documents | "ToExample" >> beam.Map(_to_example).with_output_types(tf.train.Example)


def _to_example(document: Document) -> tf.train.Example:
    def feature(value: str) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode("utf-8")]))

    features = {"text": feature(document.text), "source": feature(document.source)}
    return tf.train.Example(features=tf.train.Features(feature=features))


def _read_settings(exec_properties: dict[str, Any]) -> dict[str, Any]:
    """Returns what `corpus_example_gen` packed into the custom config."""
    config = example_gen_pb2.CustomConfig()
    proto_utils.json_to_proto(exec_properties["custom_config"], config)
    settings = struct_pb2.Struct()
    config.custom_config.Unpack(settings)
    return json_format.MessageToDict(settings)


def _input_folder(exec_properties: dict[str, Any]) -> str:
    """Returns the folder that is read: `input_base`, or the span's folder in it."""
    config = example_gen_pb2.Input()
    proto_utils.json_to_proto(exec_properties["input_config"], config)
    return os.path.dirname(os.path.join(exec_properties["input_base"], config.splits[0].pattern))


def _list_files(folder: str) -> tuple[list[str], list[str]]:
    """Returns the paths of the files to read, and the names of all else in the folder."""
    if not fileio.isdir(folder):
        raise ValueError(f"there is no input folder {folder!r}")
    try:
        names = sorted(name.rstrip("/") for name in fileio.listdir(folder))
    except (OSError, tf.errors.OpError) as error:
        raise ValueError(f"cannot list the input folder {folder!r}: {error}") from error
    files, ignored = [], []
    for name in names:
        path = os.path.join(folder, name)
        if fileio.isdir(path):
            ignored.append(name + "/")
        elif suffix_of(name):
            files.append(path)
        else:
            ignored.append(name)
    if not files:
        raise ValueError(
            f"the input folder {folder!r} holds no readable documents: no file {folder}/* of "
            f"{len(names)} ends in {', '.join(SUFFIXES)}"
        )
    return files, ignored
