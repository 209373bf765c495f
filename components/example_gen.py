"""CorpusExampleGen: a folder of texts becomes raw examples in the splits `train` and `eval`.

    {"text": bytes, "source": bytes}, both of one value; see components/records.py for the formats.

What is no document goes to a dead-letter file and is counted. The examples' folder gets
`counts.json` and `refused.jsonl`, a Refusal in JSON a line. TFX deletes that folder when a
component fails, so then both are copied to the report folder first, and the error names it.
"""

import itertools
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

from components.records import SUFFIXES, Document, Refusal, read_records, suffix_of

# So many hash buckets that eval_share has three digits.
BUCKETS = 1000

# A failing run's error quotes so many refused records; all of them are in the file that it names.
QUOTED_REFUSALS = 5

# In the examples' folder. The last one is a folder of partial counts, gone when `Do` returns.
COUNTS, REFUSED, PARTS = "counts.json", "refused.jsonl", "counts"


def corpus_example_gen(
    input_base: str,
    eval_share: float = 0.1,
    max_refused_share: float = 0.001,
    spans: bool = False,
    report_dir: str | None = None,
) -> "CorpusExampleGen":
    """The component that reads the user's folder of texts.

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
    settings.update({"max_refused_share": max_refused_share, "eval_share": eval_share})
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
        _count(splits, self._examples_uri, "written")
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

        counts = _read_counts(self._examples_uri, ["train", "eval"])
        counts.update(files=len(self._files), ignored_files=ignored)
        with fileio.open(os.path.join(self._examples_uri, COUNTS), "w") as file:
            file.write(json.dumps(counts, indent=2) + "\n")
        report_folder = settings.get("report_dir") or self._examples_uri.rstrip("/") + "-refused"
        try:
            _check_counts(counts, settings, folder, self._examples_uri, report_folder)
        except (ValueError, RuntimeError):
            _copy_report(self._examples_uri, report_folder)
            raise
        if "report_dir" in settings:
            _copy_report(self._examples_uri, report_folder)


class CorpusExampleGen(FileBasedExampleGen):
    """The component; made by `corpus_example_gen`."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver


class ReadCorpus(beam.PTransform):
    """The documents of the files as examples; refusals and counts are written on the way.

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

        _count({"read": records, "refused": refusals}, self._folder, "read")
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


def _count(collections: dict[str, beam.PCollection], examples_uri: str, stage: str) -> None:
    """Writes how many elements each collection has, examples by source, for `_read_counts`.

    Exact on every runner, which Beam's metrics are not: those count a bundle that is tried twice
    as two.
    """

    def key(element: Any, label: str) -> tuple[str, str]:
        if not isinstance(element, tf.train.Example):
            return label, ""
        return label, element.features.feature["source"].bytes_list.value[0].decode("utf-8")

    keys = [
        collection | f"Key[{label}]" >> beam.Map(key, label)
        for label, collection in collections.items()
    ]
    _ = (
        keys
        | f"Flatten[{stage}]" >> beam.Flatten()
        | f"Count[{stage}]" >> beam.combiners.Count.PerElement()
        | f"CountToJson[{stage}]" >> beam.MapTuple(lambda key, count: json.dumps([*key, count]))
        | f"WriteCounts[{stage}]" >> beam.io.WriteToText(os.path.join(examples_uri, PARTS, stage))
    )


def _read_counts(examples_uri: str, split_names: list[str]) -> dict[str, Any]:
    """The counts that `_count` wrote; their files are gone afterwards."""
    parts = os.path.join(examples_uri, PARTS)
    counts: dict[str, dict[str, int]] = {label: {} for label in ("read", "refused", *split_names)}
    for path in fileio.glob(os.path.join(parts, "*")):
        with fileio.open(path) as file:
            for label, source, count in map(json.loads, file):
                counts[label][source] = count
    fileio.rmtree(parts)
    totals = {label: sum(by_source.values()) for label, by_source in counts.items()}
    sources = sorted({source for name in split_names for source in counts[name]})
    return {
        "read": totals["read"],
        "kept": sum(totals[name] for name in split_names),
        "refused": totals["refused"],
        **{name: totals[name] for name in split_names},
        "sources": {
            source: {name: counts[name].get(source, 0) for name in split_names}
            for source in sources
        },
    }


def _check_counts(
    counts: dict[str, Any], settings: dict[str, Any], folder: str, examples_uri: str, report: str
) -> None:
    read, kept, refused = counts["read"], counts["kept"], counts["refused"]
    if read != kept + refused:
        raise RuntimeError(f"{folder!r}: {read} records read, but {kept} kept + {refused} refused")
    limit = settings["max_refused_share"]
    if refused > limit * read:
        raise ValueError(
            f"{folder!r}: {refused} of {read} records refused, {refused / read:.3%}, more than "
            f"max_refused_share {limit:.3%}. All of them are in "
            f"{os.path.join(report, REFUSED)!r}, the first are\n  "
            + "\n  ".join(_first_refusals(examples_uri))
        )
    if not kept:
        raise ValueError(
            f"{folder!r} holds no documents: {read} records read from {counts['files']} files, "
            f"{refused} refused, none kept"
        )
    for name in ("train", "eval"):
        if not counts[name]:
            raise ValueError(
                f"{folder!r}: the {name} split is empty: {kept} documents, eval_share "
                f"{settings['eval_share']}; give more documents or a larger share"
            )


def _first_refusals(examples_uri: str) -> list[str]:
    with fileio.open(os.path.join(examples_uri, REFUSED)) as file:
        refusals = [json.loads(line) for line in itertools.islice(file, QUOTED_REFUSALS)]
    return ["{file}:{line}: {reason}".format(**refusal) for refusal in refusals]


def _copy_report(examples_uri: str, report: str) -> None:
    fileio.makedirs(report)
    for name in (COUNTS, REFUSED):
        fileio.copy(os.path.join(examples_uri, name), os.path.join(report, name), overwrite=True)


def _read_settings(exec_properties: dict[str, Any]) -> dict[str, Any]:
    """What `corpus_example_gen` packed into the custom config."""
    config = example_gen_pb2.CustomConfig()
    proto_utils.json_to_proto(exec_properties["custom_config"], config)
    settings = struct_pb2.Struct()
    config.custom_config.Unpack(settings)
    return json_format.MessageToDict(settings)


def _input_folder(exec_properties: dict[str, Any]) -> str:
    """The folder that is read: `input_base`, or the span's folder in it."""
    config = example_gen_pb2.Input()
    proto_utils.json_to_proto(exec_properties["input_config"], config)
    return os.path.dirname(os.path.join(exec_properties["input_base"], config.splits[0].pattern))


def _list_files(folder: str) -> tuple[list[str], list[str]]:
    """The paths of the files to read, and the names of all else in the folder."""
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
