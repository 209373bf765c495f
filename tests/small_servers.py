"""Servers on small made models, so that no GPT-2 is needed, and what talks to them."""

import atexit
import contextlib
import functools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.batching import Batcher
from serving.options import ServerOptions
from serving.server import Server

POLL_SECONDS = 0.02
CONTEXT = 16


class Echo(tf.Module):
    """Gives the ids that it gets plus `shift`, of rows that are told their lengths.

    - serving_default demands every input;
    - defaults: `max_new_tokens` and `stop` may be left out; says how many rows were run at once;
    - count: counts up to `steps`, one by one, which can take for ever;
    - total: one number for all rows; distinct: another number of rows;
    - bytes, floats: give what they get.
    """

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = tf.Variable(shift, dtype=tf.int32)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int32, "ids"),
            tf.TensorSpec([None], tf.int32, "lengths"),
            tf.TensorSpec([None], tf.int32, "max_new_tokens"),
            tf.TensorSpec([None], tf.float32, "temperature"),
        ]
    )
    def generate(self, ids, lengths, max_new_tokens, temperature):
        del temperature
        check_context(lengths, max_new_tokens)
        return {"ids": ids + self.shift, "lengths": tf.minimum(lengths, max_new_tokens)}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int32, "ids"),
            tf.TensorSpec([None], tf.int32, "lengths"),
            tf.TensorSpec([None], tf.int32, "max_new_tokens"),
            tf.TensorSpec([None, None], tf.string, "stop"),
        ]
    )
    def with_defaults(
        self,
        ids,
        lengths,
        max_new_tokens=tf.constant([4], tf.int32),  # noqa: B008 (where TensorFlow looks for it)
        stop=tf.constant([["."]]),  # noqa: B008
    ):
        check_context(lengths, max_new_tokens)
        return {
            "ids": ids + self.shift,
            "most": max_new_tokens + tf.zeros_like(lengths),
            "stops": tf.strings.reduce_join(stop, axis=1) + tf.fill(tf.shape(lengths), ""),
            "rows": tf.fill(tf.shape(lengths), tf.size(lengths)),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, "steps")])
    def count(self, steps):
        (counted,) = tf.while_loop(lambda n: tf.reduce_any(n < steps), one_more, [0 * steps])
        return {"counted": counted}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, "numbers")])
    def total(self, numbers):
        return {"total": tf.reduce_sum(numbers) + self.shift}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "texts")])
    def same_bytes(self, texts):
        return {"texts_bytes": tf.identity(texts)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "numbers")])
    def same_floats(self, numbers):
        return {"numbers": tf.identity(numbers)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, "numbers")])
    def distinct(self, numbers):
        return {"values": tf.unique(numbers).y}


def one_more(counted: tf.Tensor) -> list[tf.Tensor]:
    return [counted + 1]


def check_context(lengths: tf.Tensor, max_new_tokens: tf.Tensor) -> None:
    total = tf.reduce_max(lengths + max_new_tokens)
    message = tf.strings.format("{} tokens exceed the context of {}", (total, CONTEXT))
    tf.debugging.Assert(total <= CONTEXT, [message])


@functools.cache
def exported(shift: int) -> Path:
    """The folder of an exported Echo with a shift; the same for all tests of a run."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    echo = Echo(shift)
    signatures = {
        "serving_default": echo.generate,
        "defaults": echo.with_defaults,
        "count": echo.count,
        "total": echo.total,
        "distinct": echo.distinct,
        "bytes": echo.same_bytes,
        "floats": echo.same_floats,
    }
    tf.saved_model.save(echo, str(folder), signatures=signatures)
    return folder


def push(source: Path, base_path: Path, version: int) -> None:
    """Copies under a name that is no number, then renames, as the pusher does."""
    staged = base_path / f"staged-{version}"
    shutil.copytree(source, staged)
    staged.rename(base_path / str(version))


def push_broken(base_path: Path, version: int) -> None:
    folder = base_path / str(version)
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"no model")


@contextlib.contextmanager
def running_server(
    base_path: Path, report: Callable[[str], None] | None = None, **options: Any
) -> Iterator[Server]:
    described = ServerOptions(**({"port": 0, "poll_seconds": POLL_SECONDS} | options))
    with Server(base_path, "echo", described, report) as server:
        yield server


@contextlib.contextmanager
def channel_to(server: Server) -> Iterator[grpc.Channel]:
    no_limit = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(server.address, options=no_limit) as channel:
        yield channel


def make_request(
    inputs: Mapping[str, Any], signature: str = "", model_name: str = "echo"
) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        # Python's own numbers become int32 and float32, as the made model has them.
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def echo_request(
    ids: list[list[int]] | np.ndarray, model_name: str = "echo", max_new_tokens: int = 4
) -> predict_pb2.PredictRequest:
    inputs = {
        "ids": np.array(ids, np.int32),
        "lengths": np.array([len(row) for row in ids], np.int32),
        "max_new_tokens": np.full(len(ids), max_new_tokens, np.int32),
        "temperature": np.zeros(len(ids), np.float32),
    }
    return make_request(inputs, model_name=model_name)


def predict(channel: grpc.Channel, request: predict_pb2.PredictRequest, timeout: float = 30):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    return stub.Predict(request, timeout=timeout)


def call_for_ever(channel: grpc.Channel, timeout: float | None = None) -> grpc.Future:
    """A call that runs, and does not end by itself within any test's time."""
    request = make_request({"steps": [2**31 - 1]}, "count")
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    return stub.Predict.future(request, timeout=timeout)


def read_outputs(response: predict_pb2.PredictResponse) -> dict[str, Any]:
    return {name: tf.make_ndarray(proto).tolist() for name, proto in response.outputs.items()}


def get_status(channel: grpc.Channel, model_name: str = "echo", version: int | None = None):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = model_name
    if version is not None:
        request.model_spec.version.value = version
    return model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=30)


def states(channel: grpc.Channel) -> list[tuple[int, str, str]]:
    """Version, state and error of each version, newest first."""
    return [
        (
            entry.version,
            get_model_status_pb2.ModelVersionStatus.State.Name(entry.state),
            entry.status.error_message,
        )
        for entry in get_status(channel).model_version_status
    ]


def in_queue(batcher: Batcher) -> int:
    """How many calls wait for a batch."""
    return sum(len(queue.calls) for queue in batcher._queues.values())


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} seconds"
        time.sleep(0.01)
