"""model/interruption.py."""

import contextlib
import signal
import threading
from typing import Any

import pytest

from model.interruption import SigtermWatch, TrainingInterrupted


@pytest.fixture
def received():
    """The signals that arrive at the handler which stands outside of the watch."""
    signals: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    yield signals
    signal.signal(signal.SIGTERM, previous)


def test_a_signal_is_noted_and_goes_no_further(received):
    seen = []
    with contextlib.suppress(TrainingInterrupted), SigtermWatch() as watch:
        seen.append(watch.is_raised)
        signal.raise_signal(signal.SIGTERM)
        seen.append(watch.is_raised)
        raise TrainingInterrupted
    assert seen == [False, True]
    assert received == []


def test_the_handler_before_is_there_again(received):
    before = signal.getsignal(signal.SIGTERM)
    with SigtermWatch():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
    signal.raise_signal(signal.SIGTERM)
    assert received == [signal.SIGTERM]


def test_a_signal_that_nobody_acted_upon_reaches_the_handler_before(received):
    with SigtermWatch():
        signal.raise_signal(signal.SIGTERM)
        assert received == []
    assert received == [signal.SIGTERM]


def test_in_another_thread_it_changes_nothing(received):
    before = signal.getsignal(signal.SIGTERM)
    found: list[Any] = []

    def watch() -> None:
        with SigtermWatch() as watch:
            found.extend([watch.is_raised, signal.getsignal(signal.SIGTERM)])

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert found == [False, before]
