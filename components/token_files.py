"""A split's tokens in files that are mapped into memory, so that a corpus may exceed it."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from components.transformed_examples import fingerprint, read_batches

# Two bytes a token: GPT-2's 50,257 ids fit.
_TOKEN_TYPE = np.dtype("<u2")
_LARGEST_TOKEN = np.iinfo(_TOKEN_TYPE).max
# All tokens, uint16 [N], and how many each document has, int64 [M].
Documents = tuple[np.ndarray, np.ndarray]

_TOKENS, _LENGTHS = "tokens.bin", "lengths.npy"

_WRITING = "writing-"
# What nobody has written to for so long, nobody is writing any more.
_LEFT_BEHIND_SECONDS = 24 * 60 * 60


def tokens_folder(checkpoints: Path, files: Sequence[str]) -> Path:
    """Returns the folder of the files' tokens among those of the runs; runs on them share it."""
    return checkpoints / "tokens" / fingerprint(files)[:16]


def map_documents(files: Sequence[str], folder: Path) -> Documents:
    """Returns all tokens of the files, uint16 [N], and each document's count, int64 [M].

    The tokens are mapped from `folder`, not read: the system keeps in memory what is in use and
    for what else there is room. The first call writes the folder, 2 bytes a token and 8 a
    document; later ones parse nothing. It should be on a local disk, as rows are read in random
    order, and its path must say which data it belongs to, as `tokens_folder`'s does.

    Raises:
        ValueError: A token id does not fit into 16 bits, or the folder's files don't belong
            together.
    """
    if not folder.exists():
        _write(files, folder)
    lengths = np.load(folder / _LENGTHS)
    num_tokens, num_bytes = int(lengths.sum()), (folder / _TOKENS).stat().st_size
    if num_bytes != num_tokens * _TOKEN_TYPE.itemsize:
        raise ValueError(
            f"{folder}: {_LENGTHS} counts {num_tokens} tokens, but {_TOKENS} has {num_bytes} "
            "bytes: delete the folder, and it is written again"
        )
    if not num_tokens:  # nothing cannot be mapped
        return np.zeros(0, _TOKEN_TYPE), lengths
    # As a plain array, whose slices are cheaper; it stays mapped.
    return np.asarray(np.memmap(folder / _TOKENS, _TOKEN_TYPE, mode="r")), lengths


def digest(folder: Path) -> str:
    """Returns a digest of what `map_documents` has written: the same for the same documents."""
    return fingerprint([str(folder / _LENGTHS), str(folder / _TOKENS)])


def _write(files: Sequence[str], folder: Path) -> None:
    """Writes the folder under another name, then renames it: it exists as a whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _delete_left_behind(folder.parent)
    with tempfile.TemporaryDirectory(prefix=_WRITING, dir=folder.parent) as parent:
        staged = Path(parent) / folder.name
        staged.mkdir()
        with (staged / _TOKENS).open("wb") as file:
            lengths = _write_tokens(files, file)
            _make_durable(file)
        with (staged / _LENGTHS).open("wb") as file:
            np.save(file, lengths)
            _make_durable(file)
        try:
            staged.rename(folder)
        except OSError:
            if not folder.exists():  # else another worker was faster, and wrote the same
                raise


def _delete_left_behind(parent: Path) -> None:
    """Deletes what processes that were killed had written; other workers' may be in use."""
    for folder in parent.glob(_WRITING + "*"):
        with contextlib.suppress(FileNotFoundError):  # another worker deletes it too
            touched = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
            if touched < time.time() - _LEFT_BEHIND_SECONDS:
                shutil.rmtree(folder)


def _write_tokens(files: Sequence[str], file: BinaryIO) -> np.ndarray:
    """Writes all tokens and returns each document's count."""
    counts = [np.zeros(0, np.int64)]
    # Shown only where it takes long: a billion tokens take the better part of a minute.
    with tqdm(desc="reading", unit="token", unit_scale=True, delay=5) as progress:
        for tokens, lengths, _ in read_batches(files):
            file.write(_narrow(tokens).tobytes())
            counts.append(lengths)
            progress.update(len(tokens))
    return np.concatenate(counts)


def _make_durable(file: BinaryIO) -> None:
    """Has the file on the disk before the folder gets its name, whatever happens to the machine."""
    file.flush()
    os.fsync(file.fileno())


def _narrow(tokens: np.ndarray) -> np.ndarray:
    if tokens.size and not 0 <= tokens.min() <= tokens.max() <= _LARGEST_TOKEN:
        wrong = tokens[(tokens < 0) | (tokens > _LARGEST_TOKEN)][0]
        raise ValueError(f"input_ids must be from 0 to {_LARGEST_TOKEN}, got {wrong}")
    return tokens.astype(_TOKEN_TYPE)
