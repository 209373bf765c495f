"""CorpusExampleGen: a folder of texts becomes raw examples in the splits `train` and `eval`.

    {"text": bytes, "source": bytes, "part": bytes}, each of one value

See components/records.py for the formats. With spans a model is trained on the newest, and
evaluated on that and on some earlier ones, so that a model that forgot what it knew is found out.
`part`, `new` or `old`, tells them apart. What earlier spans have for training is left out.

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
from tfx.components.example_gen import driver, utils
from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils
from tfx.utils import io_utils, proto_utils

from components.code_version import code_digest
from components.corpus_counts import (
    COUNTS,
    check_counts,
    copy_report,
    count_elements,
    read_counts,
)
from components.examples_pipeline import WritesExamples
from components.input_files import NEW, OLD, choose_earlier_spans, list_files, span_folder
from components.read_corpus import ReadCorpus

# So many hash buckets that eval_share has three digits.
BUCKETS = 1000


def corpus_example_gen(
    input_base: str,
    eval_share: float = 0.1,
    max_refused_share: float = 0.001,
    spans: bool = False,
    eval_spans: int = 0,
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
        eval_spans: With spans, from how many earlier ones to take the eval split's documents too,
            see `choose_earlier_spans`.
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

    if eval_spans < 0:
        raise ValueError(f"eval_spans is {eval_spans}, must be >= 0")

    settings: dict[str, Any] = {
        "max_refused_share": max_refused_share,
        "eval_share": eval_share,
        "code": code_digest(),
    }
    if spans:
        settings["eval_spans"] = eval_spans
    if report_dir is not None:
        settings["report_dir"] = report_dir
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
        custom_config=_pack_settings(settings),
    )


class Driver(driver.FileBasedDriver):
    """Finds the newest span and the earlier ones to evaluate on.

    The settings get `earlier_spans`, and the fingerprint a line for each of them: TFX's cache key
    covers both, so that a change in an earlier span is noticed as one in the newest is.
    """

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
        settings = _read_settings(resolved)
        if "eval_spans" in settings:
            _add_earlier_spans(resolved, settings)
        return resolved


class Executor(WritesExamples, BaseExampleGenExecutor):
    """Reads documents, writes them by split, counts all that it read."""

    def GetInputSourceToExamplePTransform(self) -> Any:  # noqa: N802
        """Returns what makes the transform that reads the files found by `Do`."""
        return lambda exec_properties, pattern: ReadCorpus(self._files, self._examples_uri)

    def GenerateExamplesByBeam(  # noqa: N802
        self, pipeline: beam.Pipeline, exec_properties: dict[str, Any]
    ) -> dict[str, beam.PCollection]:
        """Returns the examples of each split, and has them counted by part and source."""
        splits = super().GenerateExamplesByBeam(pipeline, exec_properties)
        splits["train"], left_out = splits["train"] | "LeaveOut" >> beam.Partition(_part_of, 2)
        count_elements({**splits, "left_out": left_out}, self._examples_uri, "written")
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
        self._examples_uri = artifact_utils.get_single_instance(output_dict["examples"]).uri
        files, ignored = list_files(_input_folder(exec_properties))
        self._files = {NEW: files}
        earlier = [int(span) for span in settings.get("earlier_spans", [])]
        if earlier:
            folders = [span_folder(exec_properties["input_base"], span) for span in earlier]
            self._files[OLD] = [file for folder in folders for file in list_files(folder)[0]]

        super().Do(input_dict, output_dict, exec_properties)

        counts = read_counts(self._examples_uri, self._files)
        span = int(settings["span"]) if "span" in settings else None
        counts.update(span=span, earlier_spans=earlier, ignored_files=ignored)
        with fileio.open(os.path.join(self._examples_uri, COUNTS), "w") as file:
            file.write(json.dumps(counts, indent=2) + "\n")
        report_folder = settings.get("report_dir") or self._examples_uri.rstrip("/") + "-refused"
        try:
            check_counts(counts, settings, self._files, self._examples_uri, report_folder)
        except (ValueError, RuntimeError):
            copy_report(self._examples_uri, report_folder)
            raise
        if "report_dir" in settings:
            copy_report(self._examples_uri, report_folder)


class CorpusExampleGen(FileBasedExampleGen):
    """TFX's FileBasedExampleGen with the executor above; `corpus_example_gen` makes it."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = Driver


def _part_of(example: tf.train.Example, num_parts: int) -> int:
    (part,) = example.features.feature["part"].bytes_list.value
    return [NEW, OLD].index(part.decode())


def _add_earlier_spans(exec_properties: dict[str, Any], settings: dict[str, Any]) -> None:
    """Puts the spans into the settings, and the earlier ones' state into the fingerprint."""
    input_base, newest = exec_properties["input_base"], exec_properties["span"]
    # A Struct has no whole numbers.
    earlier = choose_earlier_spans(input_base, newest, int(settings["eval_spans"]))
    settings = settings | {"span": newest, "earlier_spans": earlier}
    exec_properties["custom_config"] = proto_utils.proto_to_json(_pack_settings(settings))
    fingerprints = [exec_properties[utils.FINGERPRINT_PROPERTY_NAME]]
    for span in earlier:
        pattern = os.path.join(span_folder(input_base, span), "*")
        fingerprints.append(io_utils.generate_fingerprint(f"span-{span}", pattern))
    exec_properties[utils.FINGERPRINT_PROPERTY_NAME] = "\n".join(fingerprints)


def _pack_settings(settings: dict[str, Any]) -> example_gen_pb2.CustomConfig:
    struct = struct_pb2.Struct()
    struct.update(settings)
    custom_config = example_gen_pb2.CustomConfig()
    # Deterministic, because TFX's cache key covers these bytes.
    custom_config.custom_config.Pack(struct, deterministic=True)
    return custom_config


def _read_settings(exec_properties: dict[str, Any]) -> dict[str, Any]:
    """Returns what `corpus_example_gen` and the driver packed into the custom config."""
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
