"""model/interruption.py."""

import contextlib
import signal
import threading
from typing import Any

import pytest

from model.interruption import InterruptionWatch, TrainingInterrupted

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture
def received():
    """The signals that arrive at the handlers which stand outside of the watch."""
    signals: list[int] = []

    def note(number: int, frame: Any) -> None:
        signals.append(number)

    previous = [(number, signal.signal(number, note)) for number in SIGNALS]
    yield signals
    for number, handler in previous:
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_goes_no_further(received, number):
    seen = []
    with contextlib.suppress(TrainingInterrupted), InterruptionWatch() as watch:
        seen.append(watch.is_asked)
        signal.raise_signal(number)
        seen.append(watch.is_asked)
        raise TrainingInterrupted
    assert seen == [False, True]
    assert received == []


@pytest.mark.parametrize("number", SIGNALS)
def test_the_handler_before_is_there_again(received, number):
    before = signal.getsignal(number)
    with InterruptionWatch():
        assert signal.getsignal(number) != before
    assert signal.getsignal(number) == before
    signal.raise_signal(number)
    assert received == [number]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_nobody_acted_upon_reaches_the_handler_before(received, number):
    with InterruptionWatch():
        signal.raise_signal(number)
        assert received == []
    assert received == [number]


@pytest.mark.parametrize("between", [[], [signal.SIGTERM]])
def test_ctrl_c_a_second_time_has_its_usual_effect(received, between):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seen: list[Any] = []

    def press_twice() -> None:
        with InterruptionWatch() as watch:
            signal.raise_signal(signal.SIGINT)
            seen.append(watch.is_asked)
            for number in between:
                signal.raise_signal(number)
            signal.raise_signal(signal.SIGINT)
            seen.append("went on")

    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert seen == [True]


@pytest.mark.parametrize("number", SIGNALS)
def test_an_ignored_signal_is_ignored_still(received, number):
    signal.signal(number, signal.SIG_IGN)
    with InterruptionWatch() as watch:
        signal.raise_signal(number)
        assert not watch.is_asked
    assert signal.getsignal(number) == signal.SIG_IGN


def test_sigterm_a_second_time_is_no_more_than_the_first(received):
    with contextlib.suppress(TrainingInterrupted), InterruptionWatch():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        raise TrainingInterrupted
    assert received == []


def test_in_another_thread_it_changes_nothing(received):
    before = [signal.getsignal(number) for number in SIGNALS]
    found: list[Any] = []

    def watch() -> None:
        with InterruptionWatch() as watch:
            found.append(watch.is_asked)
            found.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert found == [False, *before]
