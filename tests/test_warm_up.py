"""serving/warm_up.py: a version answers its own requests before it is served."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.options import ServerOptions
from serving.signature import Signature
from serving.warm_up import MAX_RECORDS, load_and_warm_up
from tests.small_servers import (
    channel_to,
    echo_request,
    exported,
    make_request,
    predict,
    push,
    running_server,
    states,
    wait_until,
)


def log_of(request) -> bytes:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    return log.SerializeToString()


def push_with_records(base_path: Path, version: int, records: Sequence[bytes]) -> Path:
    push(exported(1), base_path, version)
    file = base_path / str(version) / "assets.extra" / "tf_serving_warmup_requests"
    file.parent.mkdir()
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)
    return base_path / str(version)


@pytest.fixture
def runs(monkeypatch) -> list[list[int]]:
    """The lengths that each run of a model was given."""
    runs: list[list[int]] = []
    run = Signature.run

    def note_and_run(self, inputs, cancel):
        runs.append(list(inputs["lengths"]))
        return run(self, inputs, cancel)

    monkeypatch.setattr(Signature, "run", note_and_run)
    return runs


def test_a_version_answers_its_requests_in_order_and_then_is_served(tmp_path, runs):
    defaults = make_request({"ids": [[1, 2], [3, 4]], "lengths": [2, 1]}, "defaults")
    records = [log_of(echo_request([[1, 2, 3]])), log_of(defaults)]
    push_with_records(tmp_path, 1, records)
    with running_server(tmp_path) as server, channel_to(server) as channel:
        assert runs == [[3], [2, 1]]
        assert states(channel) == [(1, "AVAILABLE", "")]


def test_warm_up_runs_the_sizes_that_batches_have(tmp_path, runs):
    folder = push_with_records(tmp_path, 1, [log_of(echo_request([[1]] * 3))])
    options = ServerOptions(max_batch_rows=4, allowed_batch_sizes=[2, 4])
    load_and_warm_up(folder, options)
    assert runs == [[1, 1, 1, 1]]


def test_warm_up_runs_each_size_that_a_batch_with_its_request_may_have(tmp_path, runs):
    alone, too_many = echo_request([[1]]), echo_request([[1]] * 5)
    folder = push_with_records(tmp_path, 1, [log_of(alone), log_of(too_many)])
    load_and_warm_up(folder, ServerOptions(max_batch_rows=4, allowed_batch_sizes=[1, 2, 4]))
    assert runs == [[1], [1, 1], [1, 1, 1, 1], [1, 1, 1, 1, 1]]


def test_a_version_that_fails_at_its_warm_up_is_not_served_and_the_old_one_goes_on(tmp_path):
    push(exported(1), tmp_path, 1)
    with running_server(tmp_path) as server, channel_to(server) as channel:
        good, bad = echo_request([[1]]), echo_request([[1]], max_new_tokens=16)
        staged = tmp_path / "staged"
        staged.mkdir()
        push_with_records(staged, 2, [log_of(good), log_of(bad)]).rename(tmp_path / "2")
        wait_until(lambda: states(channel)[0][:2] == (2, "END"))
        assert states(channel)[0][2] == (
            f"{tmp_path}/2 failed to load (attempt 1): warm-up request 2 in "
            f"{tmp_path}/2/assets.extra/tf_serving_warmup_requests failed: "
            "17 tokens exceed the context of 16"
        )
        assert predict(channel, good).model_spec.version.value == 1


def test_warm_up_can_be_switched_off(tmp_path, runs):
    folder = push_with_records(tmp_path, 1, [b"no log"])
    load_and_warm_up(folder, ServerOptions(warm_up=False))
    assert runs == []


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([b"no log"], r"warm-up request 1 in .* failed"),
        (
            [prediction_log_pb2.PredictionLog().SerializeToString()],
            r"warm-up request 1 in .* failed: must be a predict_log, got None",
        ),
        (
            [log_of(echo_request([[1]]))] * (MAX_RECORDS + 1),
            "must have at most 1000 records, got more",
        ),
    ],
)
def test_a_wrong_file_is_an_error(tmp_path, records, message):
    folder = push_with_records(tmp_path, 1, records)
    with pytest.raises(ValueError, match=message):
        load_and_warm_up(folder, ServerOptions())


def test_a_damaged_file_is_an_error(tmp_path):
    folder = push_with_records(tmp_path, 1, [log_of(echo_request([[1]]))])
    file = folder / "assets.extra" / "tf_serving_warmup_requests"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(tf.errors.DataLossError):
        load_and_warm_up(folder, ServerOptions())
