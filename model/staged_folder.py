"""A folder that is there whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def staged_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a folder beside `folder` to write into, which at the end is renamed to it.

    With an error on the way it is deleted; a process that is killed leaves it behind under its
    own name, `.<name>.staged-<process id>`, and never a half-written `folder`.

    Raises:
        ValueError: `folder` exists.
    """
    folder = Path(os.path.abspath(folder))
    check_absent(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = folder.with_name(f".{folder.name}.staged-{os.getpid()}")
    staged.mkdir()
    try:
        yield staged
        check_absent(folder)  # renaming would replace an empty one
        staged.rename(folder)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def check_absent(folder: str | os.PathLike[str]) -> None:
    """Does nothing if there is nothing under that name.

    Raises:
        ValueError: There is.
    """
    if os.path.lexists(folder):
        raise ValueError(f"{os.fspath(folder)} exists already; give a folder that does not")
