"""TensorFlow Serving's gRPC services: what they answer is found by `Predictor` and `Models`."""

from collections.abc import Callable
from typing import TypeVar

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.call import Call
from serving.errors import RequestError
from serving.models import Models
from serving.predictor import Predictor

Request = TypeVar("Request")
Response = TypeVar("Response")

# gRPC sends a status in HTTP headers, of which a client takes 8 KiB, and a byte that is not ASCII
# takes three bytes there.
_MAX_ERROR_BYTES = 2048


class PredictionServicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Runs signatures; Classify, Regress and MultiInference are UNIMPLEMENTED."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def Predict(  # noqa: N802 (as the service has it)
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Answers one request, unless its sender leaves before."""
        call = Call(context.time_remaining())
        if not context.add_callback(call.leave):
            call.leave()
        return _answer(lambda request: self._predictor.predict(request, call), request, context)

    def GetModelMetadata(  # noqa: N802
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Returns what a model's signatures take and give."""
        return _answer(self._predictor.get_metadata, request, context)


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Tells which versions are served, or why not, and changes that.

    Args:
        models: The models.
        changed: Called after the models were changed.
    """

    def __init__(self, models: Models, changed: Callable[[], None]) -> None:
        self._models = models
        self._changed = changed

    def GetModelStatus(  # noqa: N802
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns state and error of one version or, newest first, of all that were tried."""
        return _answer(self._models.get_status, request, context)

    def HandleReloadConfigRequest(  # noqa: N802
        self, request: model_management_pb2.ReloadConfigRequest, context: grpc.ServicerContext
    ) -> model_management_pb2.ReloadConfigResponse:
        """Serves the models, versions and labels of a new configuration."""
        try:
            return _answer(self._models.reload, request, context)
        finally:
            self._changed()


def _answer(
    method: Callable[[Request], Response], request: Request, context: grpc.ServicerContext
) -> Response:
    """Returns what the method answers, or ends the call with the status of its RequestError."""
    try:
        return method(request)
    except RequestError as error:
        return context.abort(error.code, _shortened(error.message))


def _shortened(message: str) -> str:
    """Returns as much of the message as fits into the header."""
    return message.encode(errors="replace")[:_MAX_ERROR_BYTES].decode(errors="ignore")
