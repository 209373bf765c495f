"""TensorFlow Serving's gRPC services for one model; its messages are kept to the letter.

They are those of `model_servers/server_core.cc` and `model_servers/get_model_status_impl.cc`.
"""

from collections.abc import Callable
from typing import TypeVar

import grpc
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.predict import RequestError, predict
from serving.versions import ModelVersions, VersionNotServedError

Request = TypeVar("Request")
Response = TypeVar("Response")

# gRPC sends a status in HTTP headers, of which a client takes 8 KiB.
MAX_ERROR_CHARACTERS = 1000


class PredictionServicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Runs signatures of one model."""

    def __init__(self, model_name: str, versions: ModelVersions) -> None:
        self._model_name = model_name
        self._versions = versions

    def Predict(  # noqa: N802 (as the service has it)
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Answers one request; the statuses of the requests that fail are TensorFlow Serving's."""
        return _answer(self._predict, request, context)

    def _predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        _check_model_spec(request)
        spec = request.model_spec
        if not spec.name:
            raise RequestError(grpc.StatusCode.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        if spec.HasField("version_label"):
            raise RequestError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"Unrecognized servable version label: {spec.version_label}",
            )
        number = spec.version.value if spec.HasField("version") else None
        wanted = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
        try:
            if spec.name != self._model_name:
                raise VersionNotServedError(number)
            with self._versions.use(number) as version:
                return predict(version, request)
        except VersionNotServedError as error:
            raise RequestError(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}"
            ) from error


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Tells which versions of one model are served, or why not."""

    def __init__(self, model_name: str, versions: ModelVersions) -> None:
        self._model_name = model_name
        self._versions = versions

    def GetModelStatus(  # noqa: N802 (as the service has it)
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns state and error of one version or, newest first, of all that were tried."""
        return _answer(self._get_model_status, request, context)

    def _get_model_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        _check_model_spec(request)
        spec = request.model_spec
        statuses = self._versions.statuses() if spec.name == self._model_name else []
        wanted = "any versions"
        if spec.HasField("version"):
            wanted = f"version {spec.version.value}"
            statuses = [status for status in statuses if status.version == spec.version.value]
        if not statuses:
            raise RequestError(
                grpc.StatusCode.NOT_FOUND, f"Could not find {wanted} of model {spec.name}"
            )
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in statuses:
            entry = response.model_version_status.add(
                version=status.version, state=int(status.state)
            )
            entry.status.error_code = status.error_code
            entry.status.error_message = status.error_message
        return response


def _answer(
    method: Callable[[Request], Response], request: Request, context: grpc.ServicerContext
) -> Response:
    """Returns what the method answers, or ends the call with the status of its RequestError."""
    try:
        return method(request)
    except RequestError as error:
        return context.abort(error.code, error.message[:MAX_ERROR_CHARACTERS])


def _check_model_spec(
    request: predict_pb2.PredictRequest | get_model_status_pb2.GetModelStatusRequest,
) -> None:
    if not request.HasField("model_spec"):
        raise RequestError(grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
