"""Which files of the user's folder are read: all, or those of the newest span and earlier ones."""

import os

import numpy as np
import tensorflow as tf
from tfx.dsl.io import fileio

from components.records import SUFFIXES, suffix_of

# The feature `part`: the newest span, or an earlier one. Without spans all is new.
NEW, OLD = "new", "old"


def span_folder(input_base: str, span: int) -> str:
    """Returns the folder of the span."""
    return os.path.join(input_base, f"span-{span}")


def choose_earlier_spans(input_base: str, newest: int, count: int) -> list[int]:
    """Returns, in order, `count` spans from before the newest one; all, if there are no more.

    They lie evenly from the span before the newest back to the first: however long the history
    is, what was learnt at its beginning is asked for too, at the same cost. A span without a file
    to read, as when its data were deleted, is none.

    Raises:
        ValueError: A folder `span-...` with such a file is no `span-<number>`.
    """
    found = set()
    for path in fileio.glob(os.path.join(input_base, "span-*", "*")):
        folder, name = os.path.split(path)
        if not suffix_of(name):
            continue
        number = os.path.basename(folder).removeprefix("span-")
        if not number.isdecimal() or number != str(int(number)):
            raise ValueError(
                f"input_base {input_base!r}: {folder!r} must be named span-<number>, without "
                "leading zeros"
            )
        found.add(int(number))
    earlier = sorted(span for span in found if span < newest)
    if len(earlier) <= count:
        return earlier
    places = np.linspace(len(earlier) - 1, 0, count).round().astype(int)
    return [earlier[place] for place in sorted(places)]


def list_files(folder: str) -> tuple[list[str], list[str]]:
    """Returns the paths of the files to read, and the names of all else in the folder.

    Raises:
        ValueError: The folder is missing, cannot be listed, or has no file to read.
    """
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
