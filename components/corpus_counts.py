"""Counts what ExampleGen read, kept and refused, and says when that stops a run."""

import itertools
import json
import os
from typing import Any

import apache_beam as beam
import tensorflow as tf
from tfx.dsl.io import fileio

# A failing run's error quotes so many refused records; all of them are in the file that it names.
QUOTED_REFUSALS = 5

# In the examples' folder. The last one is a folder of partial counts, gone when `Do` returns.
COUNTS, REFUSED, PARTS = "counts.json", "refused.jsonl", "counts"


def count_elements(collections: dict[str, beam.PCollection], examples_uri: str, stage: str) -> None:
    """Writes how many elements each collection has, examples by source, for `read_counts`.

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


def read_counts(examples_uri: str, split_names: list[str]) -> dict[str, Any]:
    """Returns the counts that `count_elements` wrote; their files are gone afterwards."""
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


def check_counts(
    counts: dict[str, Any], settings: dict[str, Any], folder: str, examples_uri: str, report: str
) -> None:
    """Raises an error when the run must not go on.

    Args:
        counts: What `read_counts` gave, with `files`, the number of files that were read.
        settings: `max_refused_share` and `eval_share`.
        folder: The folder that was read, for the message.
        examples_uri: Where `refused.jsonl` lies now.
        report: The folder where it will lie when the run has failed.

    Raises:
        ValueError: Too large a share is refused, or a split is empty.
        RuntimeError: The counts do not add up.
    """
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


def copy_report(examples_uri: str, report: str) -> None:
    """Copies the counts and the dead letters to the folder `report`."""
    fileio.makedirs(report)
    for name in (COUNTS, REFUSED):
        fileio.copy(os.path.join(examples_uri, name), os.path.join(report, name), overwrite=True)
