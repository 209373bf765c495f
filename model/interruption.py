"""Signals to end, SIGTERM of a cluster and SIGINT of Ctrl-C, as a question between steps."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

# SIGINT first: once it is handled here, no KeyboardInterrupt comes between the two.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(Exception):  # noqa: N818 (no error, as KeyboardInterrupt is none)
    """Training was asked to stop; it has written a checkpoint and can go on from there."""


class InterruptionWatch:
    """Knows whether this process has been asked to end while the `with` block runs.

    Who presses Ctrl-C a second time does not want to wait: that has its usual effect.

    Python lets nobody but the main thread handle signals: in another thread nothing is changed,
    and a signal does what it always did. What the process ignores, as shells have it ignore SIGINT
    in the background, it ignores still.
    """

    def __init__(self) -> None:
        self._received: list[int] = []
        self._previous: dict[int, Any] = {}

    @property
    def is_asked(self) -> bool:
        """Whether a signal has come."""
        return bool(self._received)

    def __enter__(self) -> "InterruptionWatch":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                previous = signal.getsignal(number)
                if previous != signal.SIG_IGN:
                    self._previous[number] = previous
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in self._previous:
            self._restore(number)
        if self._received and error is None:
            # It came after the last look at it, and whoever sent it still waits for an end.
            signal.raise_signal(self._received[-1])

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in self._received:
            self._restore(number)
            signal.raise_signal(number)
        self._received.append(number)

    def _restore(self, number: int) -> None:
        # None stands for a handler that was not set from Python, which Python can't set again.
        previous = self._previous[number]
        signal.signal(number, signal.SIG_DFL if previous is None else previous)
