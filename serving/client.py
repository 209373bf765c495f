"""A client that sends prompts as GPT-2's tokens to a server with TensorFlow Serving's API.

It works the same against our server and a stock TensorFlow Serving. Importing it imports all of
TensorFlow, which takes seconds: tensorflow-serving-api's messages need `TensorProto`, which no
package but `tensorflow` has, and `model`, home of the tokeniser, imports Keras.
"""

import dataclasses
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, overload

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from model.tokenizer import END_OF_TEXT, gpt2_encoding
from serving import MAX_MESSAGE_BYTES

_LARGEST_INT32 = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Completion:
    """What the model wrote after a prompt.

    Args:
        text: The new text, without the prompt. Tokens are parts of UTF-8: where the last one cuts
            a character, or the model wrote no UTF-8, it holds the replacement character.
        num_tokens: How many tokens the text is made of.
        model_version: The version of the model that wrote it.
    """

    text: str
    num_tokens: int
    model_version: int


class VersionState(NamedTuple):
    """One version at the server: its state (`AVAILABLE`, `END`, ...), and an error or ""."""

    version: int
    state: str
    error: str


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


class GenerateClient:
    """Continues prompts by a served GPT-2; usable as a context manager, and by several threads.

    Args:
        address: The server's `host:port`.
        model_name: The name under which the server has the model.
        timeout_seconds: How long a call may take, in seconds.
    """

    def __init__(self, address: str, model_name: str, timeout_seconds: float = 60.0) -> None:
        if not timeout_seconds > 0:
            raise ValueError(f"timeout_seconds is {timeout_seconds}; it must be above 0")
        self.address = address
        self._model_name = model_name
        self._timeout_seconds = timeout_seconds
        self._encoding = gpt2_encoding()
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                # Else http_proxy catches calls to our own machine too.
                ("grpc.enable_http_proxy", 0),
            ],
        )
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._model = model_service_pb2_grpc.ModelServiceStub(self._channel)

    @overload
    def generate(
        self,
        prompt: str,
        max_new_tokens: int = ...,
        temperature: float = ...,
        top_k: int = ...,
        top_p: float = ...,
        seed: int = ...,
    ) -> Completion: ...

    @overload
    def generate(
        self,
        prompt: list[str],
        max_new_tokens: int = ...,
        temperature: float = ...,
        top_k: int = ...,
        top_p: float = ...,
        seed: int = ...,
    ) -> list[Completion]: ...

    def generate(
        self,
        prompt: str | list[str],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Completion | list[Completion]:
        """Returns the continuation of a prompt; of a list of prompts, one for each, in order.

        Args:
            prompt: The text to continue. An empty one is given to the model as `<|endoftext|>`,
                after which it starts a document of its own. That string within a prompt is text
                like any other.
            max_new_tokens: The most tokens to write; the model may end its text sooner. Prompt and
                new tokens together must fit the model's context.
            temperature: 0 for the likeliest token each time (greedy); else the logits' divisor:
                1 for the model's own distribution, below it for safer text.
            top_k: Draw among the k likeliest tokens only; 0 for all.
            top_p: Draw among the likeliest tokens that together have this probability; 1 for all.
            seed: Of the draws. The same seed, prompt and version give the same text; all prompts
                of a list have the same seed.

        Raises:
            ValueError: An argument is out of its range.
            ServingError: The server refused the call, or did not answer in time.
        """
        prompts = [prompt] if isinstance(prompt, str) else prompt
        if not prompts:
            raise ValueError("prompt is an empty list; it must hold at least one text")
        _check_int("max_new_tokens", max_new_tokens, 1, _LARGEST_INT32)
        _check_int("top_k", top_k, 0, _LARGEST_INT32)
        _check_int("seed", seed, -_LARGEST_INT32 - 1, _LARGEST_INT32)
        if not 0 <= temperature < float("inf"):
            raise ValueError(f"temperature is {temperature}; it must be 0 or more, and finite")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p is {top_p}; it must be above 0 and at most 1")

        rows = [self._encoding.encode_ordinary(text) or [END_OF_TEXT] for text in prompts]
        lengths = [len(row) for row in rows]
        ids = np.zeros((len(rows), max(lengths)), np.int32)  # Beyond a row's length: ignored.
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row

        def for_each_row(value: float, dtype: type) -> np.ndarray:
            return np.full(len(rows), value, dtype)

        response = self._predict(
            {
                "ids": ids,
                "lengths": np.array(lengths, np.int32),
                "max_new_tokens": for_each_row(max_new_tokens, np.int32),
                "temperature": for_each_row(temperature, np.float32),
                "top_k": for_each_row(top_k, np.int32),
                "top_p": for_each_row(top_p, np.float32),
                "seed": for_each_row(seed, np.int32),
            }
        )
        new_ids = tf.make_ndarray(response.outputs["ids"])
        new_lengths = tf.make_ndarray(response.outputs["lengths"])
        completions = [
            Completion(
                text=self._encoding.decode(row[:length].tolist()),
                num_tokens=int(length),
                model_version=response.model_spec.version.value,
            )
            for row, length in zip(new_ids, new_lengths, strict=True)
        ]
        return completions[0] if isinstance(prompt, str) else completions

    def status(self) -> list[VersionState]:
        """Returns the versions that the server knows, newest first.

        Raises:
            ServingError: The server does not know the model, or did not answer in time.
        """
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self._model_name
        try:
            response = self._model.GetModelStatus(request, timeout=self._timeout_seconds)
        except grpc.RpcError as error:
            self._raise_serving_error(error)
        return [
            VersionState(
                entry.version,
                get_model_status_pb2.ModelVersionStatus.State.Name(entry.state),
                entry.status.error_message,
            )
            for entry in response.model_version_status
        ]

    def close(self) -> None:
        """Lets go of the connection."""
        self._channel.close()

    def __enter__(self) -> "GenerateClient":
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _predict(self, inputs: dict[str, np.ndarray]) -> predict_pb2.PredictResponse:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._model_name
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        try:
            return self._prediction.Predict(request, timeout=self._timeout_seconds)
        except grpc.RpcError as error:
            self._raise_serving_error(error)

    def _raise_serving_error(self, error: Any) -> NoReturn:
        advice = {
            grpc.StatusCode.UNAVAILABLE: (
                f"is a server running at {self.address}? `make serve` starts one"
            ),
            grpc.StatusCode.NOT_FOUND: (
                f"the server has no version of a model named {self._model_name}: is the name "
                "right, and has the pipeline pushed one?"
            ),
            grpc.StatusCode.DEADLINE_EXCEEDED: (
                f"no answer within {self._timeout_seconds:g} seconds: "
                "ask for fewer tokens, or allow more time"
            ),
            grpc.StatusCode.UNIMPLEMENTED: f"what answers at {self.address} is another service",
        }
        raise ServingError(error.code(), error.details(), advice.get(error.code(), "")) from error


def _check_int(name: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, int | np.integer) or not least <= value <= most:
        raise ValueError(f"{name} is {value!r}; it must be a whole number from {least} to {most}")
