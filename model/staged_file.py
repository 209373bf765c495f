"""A file that is there whole, or as it was before."""

import os
from pathlib import Path


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text, in UTF-8, to a file beside `path` that is then renamed to it.

    Its folder is made if it is not there. With an error on the way the file beside it is deleted; a
    process that is killed leaves it behind as `.<name>.staged-<process id>`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.staged-{os.getpid()}")
    try:
        staged.write_text(text, encoding="utf-8")
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
