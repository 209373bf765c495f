"""SIGTERM, as a cluster sends it before it takes a machine away, as a question between steps."""

import signal
import threading
from types import FrameType, TracebackType


class TrainingInterrupted(Exception):  # noqa: N818 (no error, as KeyboardInterrupt is none)
    """Training was asked to stop; it has written a checkpoint and can go on from there."""


class SigtermWatch:
    """Knows whether this process has been asked to end by SIGTERM while the `with` block runs.

    Python lets nobody but the main thread handle signals: in another thread nothing is changed,
    and SIGTERM ends the process as it always did.
    """

    def __init__(self) -> None:
        self.is_raised = False

    def __enter__(self) -> "SigtermWatch":
        self._handles = threading.current_thread() is threading.main_thread()
        if self._handles:
            self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._handles:
            return
        # None stands for a handler that was not set from Python, which Python can't set again.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if self._previous is None else self._previous)
        if self.is_raised and error is None:
            # It came after the last look at it, and whoever sent it still waits for an end.
            signal.raise_signal(signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_raised = True
