"""model/prefetch.py."""

import contextlib
import threading

import pytest

from model.prefetch import one_ahead


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_what_comes_out_is_in_order(count):
    assert list(one_ahead(lambda n: n**2, range(count))) == [n**2 for n in range(count)]


def test_the_next_item_and_no_further_one_is_made_before_it_is_asked_for():
    made = [threading.Event() for _ in range(4)]

    def make(number: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        made[number].set()
        return number

    with contextlib.closing(one_ahead(make, range(4))) as numbers:
        for number in range(2):
            assert next(numbers) == number
            assert made[number + 1].wait(timeout=60)
            assert not made[number + 2].is_set()


def test_an_error_comes_when_its_item_is_asked_for():
    def make(number: int) -> float:
        return 1 / (2 - number)

    numbers = one_ahead(make, range(4))
    assert [next(numbers), next(numbers)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(numbers)
