"""The embedded server in a process of its own, and what asks it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from tensorflow_serving.apis import model_pb2, predict_pb2
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from benchmarks.processes import ROOT
from benchmarks.workers import memory_bytes
from benchmarks.workers.server import MODEL_NAME
from serving import MAX_MESSAGE_BYTES, connection


class ServerProcess:
    """A server that listens; as a context manager, until the end of `with`.

    Args:
        base: The folder of the versions.
        log: Where its reports and TensorFlow's go.
        **options: Fields of `ServerOptions`, but for the port, which is any free one.

    Raises:
        RuntimeError: It did not come up.
    """

    def __init__(self, base: Path, log: Path, **options: Any) -> None:
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.workers.server", base, json.dumps(options)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"},
            )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        if not self.address:
            raise RuntimeError(
                f"the server ended with exit status {self._process.wait()}:\n{log.read_text()}"
            )

    def resident_bytes(self) -> int:
        """Returns how much memory the process holds now.

        Raises:
            OSError: It has ended.
        """
        return memory_bytes(self._process.pid, "VmRSS")

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()


def connect(address: str) -> tuple[grpc.Channel, PredictionServiceStub]:
    """Returns a connection that no other client shares, and a stub that calls through it."""
    channel = grpc.insecure_channel(
        address,
        [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.enable_http_proxy", 0),
        ],
    )
    return channel, PredictionServiceStub(channel)


def make_request(signature: str, inputs: Mapping[str, Any]) -> predict_pb2.PredictRequest:
    """Returns a request for the newest version; values are what `tf.make_tensor_proto` takes."""
    return connection.make_request(model_pb2.ModelSpec(name=MODEL_NAME), signature, inputs)
