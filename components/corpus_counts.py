"""Counts what ExampleGen read, kept and refused, and says when that stops a run."""

import itertools
import json
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import apache_beam as beam
import tensorflow as tf
from tfx.dsl.io import fileio

from components.input_files import NEW

# A failing run's error quotes so many refused records; all of them are in the file that it names.
QUOTED_REFUSALS = 5

# In the examples' folder. The last one is a folder of partial counts, gone when `Do` returns.
COUNTS, REFUSED, PARTS = "counts.json", "refused.jsonl", "counts"


def count_elements(collections: dict[str, beam.PCollection], examples_uri: str, stage: str) -> None:
    """Writes how many elements each collection has, by part and source, for `read_counts`.

    Exact on every runner, which Beam's metrics are not: those count a bundle that is tried twice
    as two.

    Args:
        collections: By label; examples, or records that each come with their part.
        examples_uri: The examples' folder.
        stage: A name of this call's own.
    """

    def key(element: Any, label: str) -> tuple[str, str, str]:
        if not isinstance(element, tf.train.Example):
            return label, element[0], ""
        part, source = (
            element.features.feature[name].bytes_list.value[0].decode("utf-8")
            for name in ("part", "source")
        )
        return label, part, source

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


def read_counts(examples_uri: str, files: Mapping[str, list[str]]) -> dict[str, Any]:
    """Returns the counts that `count_elements` wrote; their files are gone afterwards.

    Args:
        examples_uri: The examples' folder.
        files: The paths of each part's files.

    Returns:
        `files`; `read`, the records in them, each of which is also one of `refused`, `left_out`
        (earlier spans' documents that are in no split), `train` or `eval`; `kept`, the last two;
        `parts`, the same for each part; and `sources`, `train` and `eval` for each source.
    """
    folder = os.path.join(examples_uri, PARTS)
    by_part, by_source = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for path in fileio.glob(os.path.join(folder, "*")):
        with fileio.open(path) as file:
            for label, part, source, count in map(json.loads, file):
                by_part[part, label] += count
                by_source[source, label] += count
    fileio.rmtree(folder)
    parts = {
        part: {
            "files": len(paths),
            "read": by_part[part, "read"],
            "kept": by_part[part, "train"] + by_part[part, "eval"],
            **{label: by_part[part, label] for label in ("refused", "left_out", "train", "eval")},
        }
        for part, paths in files.items()
    }
    sources = sorted({source for source, label in by_source if label in ("train", "eval")})
    return {
        **{name: sum(counts[name] for counts in parts.values()) for name in parts[NEW]},
        "parts": parts,
        "sources": {
            source: {label: by_source[source, label] for label in ("train", "eval")}
            for source in sources
        },
    }


def check_counts(
    counts: dict[str, Any],
    settings: dict[str, Any],
    files: Mapping[str, list[str]],
    examples_uri: str,
    report: str,
) -> None:
    """Raises an error when the run must not go on.

    Args:
        counts: What `read_counts` gave.
        settings: `max_refused_share` and `eval_share`.
        files: The paths of each part's files.
        examples_uri: Where `refused.jsonl` lies now.
        report: The folder where it will lie when the run has failed.

    Raises:
        ValueError: Too large a share of a part is refused, or a split has nothing of the new part.
        RuntimeError: The counts do not add up.
    """
    for part, paths in files.items():
        _check_part(
            counts["parts"][part], settings["max_refused_share"], paths, examples_uri, report
        )
    new, folder = counts["parts"][NEW], _folders(files[NEW])
    if not new["kept"]:
        raise ValueError(
            f"{folder} holds no documents: {new['read']} records read from {new['files']} files, "
            f"{new['refused']} refused, none kept"
        )
    for name in ("train", "eval"):
        if not new[name]:
            raise ValueError(
                f"{folder}: the {name} split is empty: {new['kept']} documents, eval_share "
                f"{settings['eval_share']}; give more documents or a larger share"
            )


def _check_part(
    counts: dict[str, int], limit: float, paths: list[str], examples_uri: str, report: str
) -> None:
    read, kept, refused, left_out = (
        counts[name] for name in ("read", "kept", "refused", "left_out")
    )
    if read != kept + refused + left_out:
        raise RuntimeError(
            f"{_folders(paths)}: {read} records read, but {kept} kept + {refused} refused + "
            f"{left_out} left out"
        )
    if refused > limit * read:
        raise ValueError(
            f"{_folders(paths)}: {refused} of {read} records refused, {refused / read:.3%}, more "
            f"than max_refused_share {limit:.3%}. All of them are in "
            f"{os.path.join(report, REFUSED)!r}, the first are\n  "
            + "\n  ".join(_first_refusals(examples_uri, set(paths)))
        )


def _folders(paths: list[str]) -> str:
    return ", ".join(repr(folder) for folder in dict.fromkeys(map(os.path.dirname, paths)))


def _first_refusals(examples_uri: str, paths: set[str]) -> list[str]:
    with fileio.open(os.path.join(examples_uri, REFUSED)) as file:
        refusals = (refusal for refusal in map(json.loads, file) if refusal["file"] in paths)
        return [
            "{file}:{line}: {reason}".format(**refusal)
            for refusal in itertools.islice(refusals, QUOTED_REFUSALS)
        ]


def copy_report(examples_uri: str, report: str) -> None:
    """Copies the counts and the dead letters to the folder `report`."""
    fileio.makedirs(report)
    for name in (COUNTS, REFUSED):
        fileio.copy(os.path.join(examples_uri, name), os.path.join(report, name), overwrite=True)
