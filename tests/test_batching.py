"""serving/batching.py: calls of several clients run as one, or end early."""

import threading
from collections.abc import Iterator
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf

from serving.batching import Batcher
from serving.call import Call
from serving.errors import RequestError
from tests.small_servers import in_queue, wait_until


class Recorded:
    """Stands for a signature: notes the rows of each run, and waits for `go` in each."""

    def __init__(self) -> None:
        self.defaults: dict = {}
        self.has_rows = True
        self.sizes: list[int] = []
        self.entered = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def run(self, inputs, cancel):
        self.sizes.append(len(inputs["x"]))
        self.entered.release()
        assert self.go.acquire(timeout=30)
        if np.any(inputs["x"] < 0):
            raise tf.errors.InvalidArgumentError(None, None, "x must be >= 0")
        return {"y": tf.constant(inputs["x"] * 10)}


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture
def pool() -> Iterator[futures.ThreadPoolExecutor]:
    with futures.ThreadPoolExecutor(16) as pool:
        yield pool


def submit(pool, batcher, signature, *values: int, call: Call | None = None) -> futures.Future:
    """A call with these values, which is in the queue, or runs, when this returns."""
    waiting = in_queue(batcher)
    answer = pool.submit(batcher.run, signature, {"x": np.array(values)}, call or Call())
    wait_until(lambda: in_queue(batcher) != waiting or signature.entered._value != 0)
    return answer


def start(pool, batcher, recorded, *values: int) -> futures.Future:
    """A call with these values, which runs."""
    answer = pool.submit(batcher.run, recorded, {"x": np.array(values)}, Call())
    assert recorded.entered.acquire(timeout=30)
    return answer


def y_of(answer: futures.Future) -> list[int]:
    return answer.result(timeout=30)["y"].tolist()


def test_a_lone_call_runs_at_once_however_long_others_would_be_waited_for(recorded):
    batcher = Batcher(max_rows=8, wait_seconds=1000.0)
    recorded.go.release(2)
    for _ in range(2):
        assert batcher.run(recorded, {"x": np.array([1, 2])}, Call())["y"].tolist() == [10, 20]
    assert recorded.sizes == [2, 2]
    batcher.close()


def test_calls_that_come_while_another_runs_are_run_as_one_up_to_the_limit(pool, recorded):
    batcher = Batcher(max_rows=4, wait_seconds=0.0)
    first = start(pool, batcher, recorded, 1)
    others = [submit(pool, batcher, recorded, value, value) for value in (2, 3, 4)]
    recorded.go.release(3)
    assert y_of(first) == [10]
    assert [y_of(other) for other in others] == [[20, 20], [30, 30], [40, 40]]
    assert recorded.sizes == [1, 4, 2]
    batcher.close()


def test_a_call_of_more_rows_than_a_batch_may_have_runs_alone(pool, recorded):
    batcher = Batcher(max_rows=2, wait_seconds=0.0)
    first = start(pool, batcher, recorded, 1)
    others = [submit(pool, batcher, recorded, *values) for values in ((2, 3, 4), (5,))]
    recorded.go.release(3)
    assert [y_of(call) for call in (first, *others)] == [[10], [20, 30, 40], [50]]
    assert recorded.sizes == [1, 3, 1]
    batcher.close()


def test_the_next_batch_waits_for_those_who_were_just_answered(pool, recorded):
    batcher = Batcher(max_rows=8, wait_seconds=1000.0)
    first = start(pool, batcher, recorded, 1)
    others = [submit(pool, batcher, recorded, value) for value in (2, 3)]
    recorded.go.release()
    assert y_of(first) == [10]
    assert not recorded.entered.acquire(timeout=0.1)
    first = start(pool, batcher, recorded, 1)
    recorded.go.release()
    assert [y_of(call) for call in (first, *others)] == [[10], [20], [30]]

    others = [submit(pool, batcher, recorded, value) for value in (2, 3)]
    assert not recorded.entered.acquire(timeout=0.1)
    first = start(pool, batcher, recorded, 1)
    recorded.go.release()
    assert [y_of(call) for call in (first, *others)] == [[10], [20], [30]]
    assert recorded.sizes == [1, 3, 3]
    batcher.close()


def test_those_who_do_not_come_back_are_waited_for_no_longer_than_was_set(pool, recorded):
    batcher = Batcher(max_rows=8, wait_seconds=0.05)
    first = start(pool, batcher, recorded, 1)
    others = [submit(pool, batcher, recorded, value) for value in (2, 3)]
    recorded.go.release(2)
    assert [y_of(call) for call in (first, *others)] == [[10], [20], [30]]
    assert recorded.sizes == [1, 2]
    batcher.close()


def test_a_batch_is_filled_up_to_an_allowed_size(pool, recorded):
    batcher = Batcher(max_rows=8, wait_seconds=0.0, allowed_sizes=[2, 4, 8])
    first = start(pool, batcher, recorded, 1)
    others = [submit(pool, batcher, recorded, value) for value in (2, 3, 4)]
    recorded.go.release(2)
    assert [y_of(call) for call in (first, *others)] == [[10], [20], [30], [40]]
    assert recorded.sizes == [2, 4]
    batcher.close()


def test_a_call_that_fails_fails_no_other(pool, recorded):
    batcher = Batcher(max_rows=8, wait_seconds=0.0)
    first = start(pool, batcher, recorded, 1)
    others = [submit(pool, batcher, recorded, value) for value in (2, -3, 4, 5)]
    recorded.go.release(100)
    assert y_of(first) == [10]
    with pytest.raises(RequestError, match="x must be >= 0"):
        y_of(others.pop(1))
    assert [y_of(other) for other in others] == [[20], [40], [50]]
    assert recorded.sizes == [1, 4, 2, 1, 1, 2]
    batcher.close()


def test_a_call_whose_sender_left_while_it_waited_is_never_run(pool, recorded):
    batcher = Batcher(max_rows=8, wait_seconds=0.0)
    first = start(pool, batcher, recorded, 1)
    leaving, late = Call(), Call(seconds_left=0.2)
    left = submit(pool, batcher, recorded, 2, call=leaving)
    too_late = submit(pool, batcher, recorded, 3, call=late)
    other = submit(pool, batcher, recorded, 4)
    leaving.leave()
    with pytest.raises(RequestError) as raised:
        left.result(timeout=30)
    assert raised.value.code == grpc.StatusCode.CANCELLED
    wait_until(lambda: late.has_left)
    recorded.go.release(2)
    assert (y_of(first), y_of(other)) == ([10], [40])
    with pytest.raises(RequestError) as raised:
        too_late.result(timeout=30)
    assert raised.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert recorded.sizes == [1, 1]
    batcher.close()


def test_a_batcher_that_closes_finishes_what_runs_and_refuses_what_waits(pool, recorded):
    batcher = Batcher(max_rows=8, wait_seconds=0.0)
    first = start(pool, batcher, recorded, 1)
    other = submit(pool, batcher, recorded, 2)
    closed = pool.submit(batcher.close)
    with pytest.raises(RequestError, match="The server is stopping"):
        other.result(timeout=30)
    recorded.go.release()
    assert y_of(first) == [10]
    closed.result(timeout=30)
    with pytest.raises(RequestError, match="The server is stopping"):
        batcher.run(recorded, {"x": np.array([1])}, Call())
