"""Calls to a server with TensorFlow Serving's gRPC API: repetitions, deadlines, TLS, errors."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving import MAX_MESSAGE_BYTES

# gRPC takes no more than five attempts; it waits about 0.1, 0.2, 0.4 and 0.8 seconds between them.
_RETRY = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "backoffMultiplier": 2,
    "maxBackoff": "1s",
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Else http_proxy catches calls to our own machine too.
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": _RETRY}]})),
    # Else the next attempts find a connection that is tried again after a second only.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
]


class ServingError(RuntimeError):
    """A call that the server refused or did not answer; its text says what to do.

    Args:
        code: The gRPC status code.
        details: What the server said.
        advice: What to do; "" if `details` say it already.
    """

    def __init__(self, code: grpc.StatusCode, details: str, advice: str = "") -> None:
        super().__init__(f"{code.name}: {details}" + (f" ({advice})" if advice else ""))
        self.code = code
        self.details = details


class Connection:
    """Calls the services of a server for one of its models; usable by several threads.

    A call that finds the server UNAVAILABLE is made again up to four times within its deadline,
    after waits that double.

    Args:
        address: The server's `host:port`.
        model_name: The name under which the server has the model.
        timeout_seconds: How long a call may take, in seconds.
        version: The version to ask; the server chooses if neither this nor a label is given.
        version_label: The label of the version to ask.
        metadata: Sent with every call.
        credentials: For TLS; None for a connection that is not encrypted.
    """

    def __init__(
        self,
        address: str,
        model_name: str,
        timeout_seconds: float,
        *,
        version: int | None = None,
        version_label: str | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        if not timeout_seconds > 0:
            raise ValueError(f"timeout_seconds is {timeout_seconds}; it must be above 0")
        if version is not None and version_label is not None:
            raise ValueError(
                f"version is {version} and version_label {version_label!r}; only one may be given"
            )
        self._address = address
        self._model_spec = model_pb2.ModelSpec(name=model_name, version_label=version_label)
        if version is not None:
            self._model_spec.version.value = version
        self._timeout_seconds = timeout_seconds
        self._metadata = list(metadata)
        if credentials is None:
            self._channel = grpc.insecure_channel(address, _CHANNEL_OPTIONS)
        else:
            self._channel = grpc.secure_channel(address, credentials, _CHANNEL_OPTIONS)
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._model = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def predict(
        self, signature: str, inputs: Mapping[str, Any]
    ) -> tuple[dict[str, np.ndarray], int]:
        """Returns a signature's outputs, and the version that gave them.

        Args:
            signature: Its name.
            inputs: By name, what `tf.make_tensor_proto` takes.

        Raises:
            ServingError: The server refused the call, or did not answer in time.
        """
        request = make_request(self._model_spec, signature, inputs)
        response = self._call(self._prediction.Predict, request)
        outputs = {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}
        return outputs, response.model_spec.version.value

    def status(self) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns what the server tells of the model's versions.

        Raises:
            ServingError: As `predict`.
        """
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=self._model_spec)
        return self._call(self._model.GetModelStatus, request)

    def close(self) -> None:
        """Lets go of the connection."""
        self._channel.close()

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout_seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            code = error.code()
            raise ServingError(code, error.details(), self._advice(code)) from error

    def _advice(self, code: grpc.StatusCode) -> str:
        name = self._model_spec.name
        return {
            grpc.StatusCode.UNAVAILABLE: (
                f"is a server running at {self._address}, done with loading its model, and does it "
                "speak TLS? `make serve` starts one"
            ),
            grpc.StatusCode.NOT_FOUND: (
                f"the server has no model named {name}, or not that version of it: is the name "
                "right, and has the pipeline pushed one?"
            ),
            grpc.StatusCode.DEADLINE_EXCEEDED: (
                f"no answer within {self._timeout_seconds:g} seconds: "
                "ask for fewer tokens, or allow more time"
            ),
            grpc.StatusCode.UNIMPLEMENTED: f"what answers at {self._address} is another service",
        }.get(code, "")


def make_request(
    model_spec: model_pb2.ModelSpec, signature: str, inputs: Mapping[str, Any]
) -> predict_pb2.PredictRequest:
    """Returns a request to the model for a signature; the inputs as `Connection.predict`'s."""
    request = predict_pb2.PredictRequest(model_spec=model_spec)
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def tls_credentials(
    root: str | Path | None = None,
    certificate: str | Path | None = None,
    key: str | Path | None = None,
) -> grpc.ChannelCredentials:
    """Returns what a connection needs to speak TLS.

    Args:
        root: A file in PEM with the authorities that the server's certificate may come from; those
            that gRPC knows if none is given.
        certificate: A file in PEM with the client's own certificate chain, where servers demand it.
        key: A file in PEM with that certificate's private key.

    Raises:
        ValueError: One of certificate and key is given without the other.
        OSError: A file cannot be read.
    """
    if (certificate is None) != (key is None):
        raise ValueError(f"certificate is {certificate} and key is {key}; one needs the other")
    return grpc.ssl_channel_credentials(
        *(None if path is None else Path(path).read_bytes() for path in (root, key, certificate))
    )
