"""Signals to end, SIGTERM of a cluster and SIGINT of Ctrl-C, as a question between steps."""

import signal
import threading
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


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
        self._received: int | None = None

    @property
    def is_asked(self) -> bool:
        """Whether a signal has come."""
        return self._received is not None

    def __enter__(self) -> "InterruptionWatch":
        self._handles = threading.current_thread() is threading.main_thread()
        if self._handles:
            self._previous = {
                number: signal.signal(number, self._note)
                for number in _SIGNALS
                if signal.getsignal(number) != signal.SIG_IGN
            }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._handles:
            return
        for number in self._previous:
            self._restore(number)
        if self._received is not None and error is None:
            # It came after the last look at it, and whoever sent it still waits for an end.
            signal.raise_signal(self._received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self._received == signal.SIGINT:
            self._restore(number)
            signal.raise_signal(number)
        self._received = number

    def _restore(self, number: int) -> None:
        # None stands for a handler that was not set from Python, which Python can't set again.
        previous = self._previous[signal.Signals(number)]
        signal.signal(number, signal.SIG_DFL if previous is None else previous)
