"""Runs of a real model that several calls share, and that end when their senders left."""

import gc
import time
import weakref
from collections.abc import Iterator
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import cancellation

from serving.batching import Batcher
from serving.call import Call
from serving.errors import RequestError
from serving.loading import LoadedModel
from tests.small_servers import (
    call_for_ever,
    channel_to,
    exported,
    in_queue,
    make_request,
    predict,
    push,
    read_outputs,
    running_server,
    wait_until,
)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return LoadedModel(exported(100))


@pytest.fixture
def pool() -> Iterator[futures.ThreadPoolExecutor]:
    with futures.ThreadPoolExecutor(16) as pool:
        yield pool


def test_calls_with_different_options_share_a_run_and_an_invalid_one_fails_alone(tmp_path, pool):
    push(exported(100), tmp_path, 1)
    inputs = [
        {"ids": [[1, 2, 3]], "lengths": [3]},
        {"ids": [[4], [5]], "lengths": [1, 1], "stop": [["a", "b"]]},
        {"ids": [[6]], "lengths": [1], "max_new_tokens": [9]},
        {"ids": [[7]], "lengths": [1], "max_new_tokens": [16]},
    ]
    requests = [make_request(values, "defaults") for values in inputs]
    with running_server(tmp_path) as server, channel_to(server) as channel:

        def call_at_once(requests: list) -> list[futures.Future]:
            held = call_for_ever(channel)
            wait_until(lambda: server.calls_in_progress == 1)
            answers = [pool.submit(predict, channel, request) for request in requests]
            wait_until(lambda: in_queue(server._predictor._batcher) == len(requests))
            held.cancel()
            return answers

        first, second, third = [read_outputs(call.result()) for call in call_at_once(requests[:3])]
        # What fills a row up is not cut off: a model says how much of a row is its own.
        assert (first["ids"], first["most"], first["stops"]) == ([[101, 102, 103]], [4], [b"."])
        assert (second["ids"], second["most"]) == ([[104, 99, 99], [105, 99, 99]], [4, 4])
        assert second["stops"] == [b"ab", b"ab"]
        assert (third["ids"], third["most"]) == ([[106, 99, 99]], [9])
        assert (first["rows"], second["rows"], third["rows"]) == ([4], [4, 4], [4])

        *good, bad = call_at_once(requests)
        with pytest.raises(grpc.RpcError, match="17 tokens exceed the context of 16"):
            bad.result()
        assert [read_outputs(call.result())["most"] for call in good] == [[4], [4, 4], [9]]


def test_a_call_whose_sender_cancels_or_is_late_stops_in_the_midst_of_the_graph(tmp_path):
    push(exported(100), tmp_path, 1)
    with running_server(tmp_path) as server, channel_to(server) as channel:
        late = call_for_ever(channel, timeout=0.5)
        assert late.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        cancelled = call_for_ever(channel)
        wait_until(lambda: server.calls_in_progress == 1)
        cancelled.cancel()
        # One batch at a time: this one gets its turn only if those have ended.
        response = predict(channel, make_request({"steps": [3]}, "count"))
        assert read_outputs(response) == {"counted": [3]}


def test_a_batcher_holds_no_model_that_it_has_run(pool):
    batcher = Batcher(max_rows=8, wait_seconds=0.0)
    signature = LoadedModel(exported(100)).signatures["total"]
    outputs = batcher.run(signature, {"numbers": np.array([1], np.int32)}, Call())
    assert outputs == {"total": 101}
    is_alive = weakref.ref(signature)
    del signature
    wait_until(lambda: gc.collect() >= 0 and is_alive() is None)  # its thread may still be at it
    batcher.close()


def test_a_run_that_was_cancelled_ends_no_other_run(model, pool):
    count = model.signatures["count"]
    first, second = cancellation.CancellationManager(), cancellation.CancellationManager()
    for_ever = pool.submit(count.run, {"steps": [2**31 - 1]}, first)
    other = pool.submit(count.run, {"steps": [200_000]}, second)
    first.start_cancel()
    with pytest.raises(tf.errors.CancelledError):
        for_ever.result(timeout=30)
    assert other.result(timeout=30)["counted"].numpy().tolist() == [200_000]


def test_of_two_calls_that_run_as_one_the_first_that_leaves_does_not_end_the_other(model, pool):
    batcher = Batcher(max_rows=8, wait_seconds=0.0)
    count = model.signatures["count"]
    blocker, leaving, staying = Call(), Call(), Call()

    def run(steps: int, call: Call) -> futures.Future:
        return pool.submit(batcher.run, count, {"steps": np.array([steps], np.int32)}, call)

    run(2**31 - 1, blocker)
    time.sleep(0.1)
    left, stayed = run(300_000, leaving), run(300_000, staying)
    wait_until(lambda: in_queue(batcher) == 2)
    blocker.leave()
    wait_until(lambda: in_queue(batcher) == 0)
    leaving.leave()
    with pytest.raises(RequestError):
        left.result(timeout=30)
    assert stayed.result(timeout=30)["counted"].tolist() == [300_000]
    batcher.close()
