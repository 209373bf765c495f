"""The versions of one model in a folder: a new one is loaded, then it takes over from the old."""

import contextlib
import dataclasses
import enum
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import tensorflow as tf

# As TensorFlow Serving does: one attempt and five more, a minute apart.
MAX_LOAD_RETRIES = 5
LOAD_RETRY_SECONDS = 60.0

_LARGEST_VERSION = 2**63 - 1  # an int64 in TensorFlow Serving's messages


class State(enum.IntEnum):
    """Where a version stands; the numbers are those of `ModelVersionStatus.State`."""

    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """What is known of one version; a version that failed to load is at END with an error.

    `error_code` is a number of `tensorflow.error.Code`, which are gRPC's; 0 is no error.
    """

    version: int
    state: State
    error_code: int = 0
    error_message: str = ""


@dataclasses.dataclass(eq=False)
class LoadedVersion:
    """A version in memory, and the number of calls that are using it."""

    number: int
    # Held beside its signatures because they refer to its variables only weakly.
    saved_model: Any
    signatures: Mapping[str, Any]
    calls_in_flight: int = 0


@dataclasses.dataclass(frozen=True)
class _FailedLoad:
    """What the folder held when it failed to load, how often it failed, when to try again."""

    content: tuple[tuple[str, int, int], ...]
    attempts: int
    retry_at: float


class VersionNotServedError(LookupError):
    """No version, or not the one that was asked for, is served."""


class ModelVersions:
    """Serves the newest version in a folder that loads, and lets go of the one before it.

    `poll` is to be called from one thread, again and again; the other methods from any.

    Args:
        base_path: The folder whose numeric sub-folders are the versions.
        report: Told, in one line, of each version that comes, fails or goes.
        load: Gives the saved model in a folder.
        max_load_retries: How often a version that failed to load is tried again.
        retry_seconds: Time between these attempts, in seconds. A folder whose content changes
            is tried at once, and counted from the start.
    """

    def __init__(
        self,
        base_path: Path,
        report: Callable[[str], None],
        load: Callable[[str], Any] = tf.saved_model.load,
        max_load_retries: int = MAX_LOAD_RETRIES,
        retry_seconds: float = LOAD_RETRY_SECONDS,
    ) -> None:
        self._base_path = base_path
        self._report = report
        self._load = load
        self._max_load_retries = max_load_retries
        self._retry_seconds = retry_seconds
        self._failed: dict[int, _FailedLoad] = {}
        # The lock guards what follows; it is held for moments only, never while a model loads.
        self._lock = threading.Lock()
        self._served: LoadedVersion | None = None
        self._retired: list[LoadedVersion] = []
        self._statuses: dict[int, VersionStatus] = {}

    @contextlib.contextmanager
    def use(self, number: int | None = None) -> Iterator[LoadedVersion]:
        """Returns the version that is served, which stays loaded until the `with` block ends.

        Args:
            number: The version that is wanted; None for whichever is served.

        Raises:
            VersionNotServedError: No version, or not that one, is served.
        """
        with self._lock:
            version = self._served
            if version is None or number not in (None, version.number):
                raise VersionNotServedError(
                    f"version {number or '(newest)'} was asked for, "
                    f"{version.number if version else 'none'} is served"
                )
            version.calls_in_flight += 1
        try:
            yield version
        finally:
            with self._lock:
                version.calls_in_flight -= 1

    def statuses(self) -> list[VersionStatus]:
        """Returns the versions that were tried, newest first."""
        with self._lock:
            return sorted(self._statuses.values(), key=lambda status: -status.version)

    def poll(self) -> None:
        """Serves the newest version that loads; when none does, what is served goes on.

        A version below the newest is tried when the newest fails, so that a server that starts
        beside a broken push still answers, and when the newest was deleted, which rolls it back.

        Raises:
            OSError: The folder cannot be read.
        """
        self._unload_idle()
        folders = find_versions(self._base_path)
        self._forget_all_but(folders.keys())
        for number in sorted(folders, reverse=True):
            if self._served is not None and self._served.number == number:
                break
            if self._try_to_serve(number, folders[number]):
                break

    def _try_to_serve(self, number: int, folder: Path) -> bool:
        """Says whether the version is now served; False too when it is too early to try again."""
        content = _content(folder)
        failed = self._failed.get(number)
        if failed is not None and failed.content != content:
            failed = None
        if failed is not None and (
            failed.attempts > self._max_load_retries or time.monotonic() < failed.retry_at
        ):
            return False

        self._set_status(VersionStatus(number, State.LOADING))
        started = time.monotonic()
        try:
            saved_model = self._load(str(folder))
            version = LoadedVersion(number, saved_model, saved_model.signatures)
        except Exception as error:  # noqa: BLE001  whatever it is, the old version goes on
            attempts = 1 if failed is None else failed.attempts + 1
            self._failed[number] = _FailedLoad(
                content, attempts, time.monotonic() + self._retry_seconds
            )
            code = error.error_code if isinstance(error, tf.errors.OpError) else tf.errors.UNKNOWN
            message = f"{folder} failed to load (attempt {attempts}): {error}"
            self._set_status(VersionStatus(number, State.END, code, message))
            self._report(message)
            return False

        self._failed.pop(number, None)
        self._swap(version)
        self._report(f"version {number} is served, loaded in {time.monotonic() - started:.1f} s")
        self._unload_idle()
        return True

    def _swap(self, new: LoadedVersion) -> None:
        with self._lock:
            old, self._served = self._served, new
            self._statuses[new.number] = VersionStatus(new.number, State.AVAILABLE)
            if old is not None:
                self._retired.append(old)
                self._statuses[old.number] = VersionStatus(old.number, State.UNLOADING)

    def _unload_idle(self) -> None:
        """Lets go of the retired versions that no call uses any more."""
        with self._lock:
            idle = [version for version in self._retired if version.calls_in_flight == 0]
            numbers = [version.number for version in idle]
            self._retired = [version for version in self._retired if version not in idle]
        if not idle:
            return
        # A loaded model is full of reference cycles: without a collection its variables stay.
        idle.clear()
        gc.collect()
        for number in numbers:
            with self._lock:
                # Not when a roll-back loaded the same version anew in the meantime.
                status = self._statuses.get(number)
                if status is not None and status.state == State.UNLOADING:
                    self._statuses[number] = VersionStatus(number, State.END)
            self._report(f"version {number} is unloaded")

    def _forget_all_but(self, numbers_on_disk: Set[int]) -> None:
        """Drops what is known of versions that ended and whose folder is gone."""
        for number in self._failed.keys() - numbers_on_disk:
            del self._failed[number]
        with self._lock:
            for number in self._statuses.keys() - numbers_on_disk:
                if self._statuses[number].state == State.END:
                    del self._statuses[number]

    def _set_status(self, status: VersionStatus) -> None:
        with self._lock:
            self._statuses[status.version] = status


def find_versions(base_path: Path) -> dict[int, Path]:
    """Returns the folders that are named by a number and hold a `saved_model.pb`, by number.

    That file is written last when a version is copied, so a folder without it is half done.

    Raises:
        OSError: The folder cannot be read.
    """
    folders = {}
    for folder in base_path.iterdir():
        if not (folder.name.isascii() and folder.name.isdigit()):
            continue
        if int(folder.name) <= _LARGEST_VERSION and (folder / "saved_model.pb").is_file():
            folders[int(folder.name)] = folder
    return folders


def _content(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Returns name, size and time of change of each file: when one changes, a load may succeed."""
    files = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            with contextlib.suppress(FileNotFoundError):  # deleted while we look: a change too
                stat = os.stat(path)
                files.append((path, stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(files))
