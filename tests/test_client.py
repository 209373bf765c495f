"""The client against a server that records what it gets and answers as it is told."""

from collections.abc import Iterator
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.client import Completion, GenerateClient, ServingError, VersionState

END_OF_TEXT = 50256


class RecordingServer(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    """Keeps the requests; answers with `ids` and `lengths`, or with `status` if that is set."""

    def __init__(self) -> None:
        self.requests: list = []
        self.ids: np.ndarray = np.zeros((1, 0), np.int32)
        self.lengths: list[int] = [0]
        self.status: tuple[grpc.StatusCode, str] | None = None
        self.seconds_left: float = 0.0
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self, self.server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Predict(self, request, context):  # noqa: N802 (as the service has it)
        self.requests.append(request)
        self.seconds_left = context.time_remaining()
        if self.status:
            context.abort(*self.status)
        response = predict_pb2.PredictResponse()
        response.model_spec.version.value = 5
        response.outputs["ids"].CopyFrom(tf.make_tensor_proto(self.ids))
        response.outputs["lengths"].CopyFrom(tf.make_tensor_proto(self.lengths, tf.int32))
        return response

    def GetModelStatus(self, request, context):  # noqa: N802 (as the service has it)
        self.requests.append(request)
        response = get_model_status_pb2.GetModelStatusResponse()
        response.model_version_status.add(version=2, state="END").status.error_message = "broken"
        response.model_version_status.add(version=1, state="AVAILABLE")
        return response


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    server = RecordingServer()
    yield server
    server.server.stop(None).wait()


@pytest.fixture
def client(server: RecordingServer) -> Iterator[GenerateClient]:
    with GenerateClient(server.address, "gpt2") as client:
        yield client


def sent(server: RecordingServer) -> dict[str, np.ndarray]:
    (request,) = server.requests
    return {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}


def test_a_prompt_is_sent_as_its_tokens_with_the_defaults_of_greedy_decoding(client, server):
    client.generate("Hello world")
    assert server.requests[0].model_spec.name == "gpt2"
    assert server.requests[0].model_spec.signature_name == ""
    assert {name: array.tolist() for name, array in sent(server).items()} == {
        "ids": [[15496, 995]],
        "lengths": [2],
        "max_new_tokens": [64],
        "temperature": [0.0],
        "top_k": [0],
        "top_p": [1.0],
        "seed": [0],
    }


def test_inputs_have_the_dtypes_of_the_signature(client, server):
    client.generate("x", temperature=1, top_p=1)
    assert {name: array.dtype.name for name, array in sent(server).items()} == {
        "ids": "int32",
        "lengths": "int32",
        "max_new_tokens": "int32",
        "temperature": "float32",
        "top_k": "int32",
        "top_p": "float32",
        "seed": "int32",
    }


def test_a_list_of_prompts_is_one_request_with_a_row_for_each(client, server):
    server.ids = np.array([[995, 0], [995, 995]], np.int32)
    server.lengths = [1, 2]
    completions = client.generate(
        ["Hello world", "Hello"], max_new_tokens=3, temperature=0.5, top_k=4, top_p=0.25, seed=-6
    )
    assert completions == [Completion(" world", 1, 5), Completion(" world world", 2, 5)]
    assert {name: array.tolist() for name, array in sent(server).items()} == {
        "ids": [[15496, 995], [15496, 0]],
        "lengths": [2, 1],
        "max_new_tokens": [3, 3],
        "temperature": [0.5, 0.5],
        "top_k": [4, 4],
        "top_p": [0.25, 0.25],
        "seed": [-6, -6],
    }


def test_one_prompt_gives_one_completion(client, server):
    server.ids = np.array([[995, 0, 0]], np.int32)
    server.lengths = [1]
    assert client.generate("Hello") == Completion(" world", num_tokens=1, model_version=5)


def test_an_empty_prompt_is_given_to_the_model_as_the_start_of_a_document(client, server):
    client.generate("")
    assert sent(server)["ids"].tolist() == [[END_OF_TEXT]]
    assert sent(server)["lengths"].tolist() == [1]


def test_the_end_of_text_marker_within_a_prompt_is_sent_as_ordinary_text(client, server):
    client.generate("<|endoftext|>")
    assert END_OF_TEXT not in sent(server)["ids"]


def test_a_character_that_was_cut_is_shown_as_the_replacement_character(client, server):
    server.ids = np.array([[220, 12520]], np.int32)  # a space; the first bytes of an emoji
    server.lengths = [2]
    assert client.generate("x").text == "  \N{REPLACEMENT CHARACTER}"


def test_an_answer_of_more_than_four_mebibytes_is_taken(client, server):
    server.ids = np.zeros((1, 2_000_000), np.int32)
    server.lengths = [1]
    assert client.generate("x").text == "!"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": []}, "prompt is an empty list"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be a whole number from 1 to"),
        ({"max_new_tokens": 1.5}, "max_new_tokens is 1.5; it must be a whole number"),
        ({"temperature": -1.0}, "temperature is -1.0; it must be 0 or more"),
        ({"temperature": float("nan")}, "temperature is nan; it must be 0 or more"),
        ({"temperature": float("inf")}, "temperature is inf; .* finite"),
        ({"top_k": -1}, "top_k is -1; it must be a whole number from 0 to"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p is 1.1; it must be above 0 and at most 1"),
        ({"seed": 2**31}, "seed is 2147483648; it must be a whole number from"),
    ],
)
def test_a_value_out_of_range_is_an_error_before_anything_is_sent(
    client, server, arguments, message
):
    with pytest.raises(ValueError, match=message):
        client.generate(**({"prompt": "x"} | arguments))
    assert server.requests == []


def test_a_timeout_of_no_time_is_an_error():
    with pytest.raises(ValueError, match="timeout_seconds is 0; it must be above 0"):
        GenerateClient("127.0.0.1:1", "gpt2", timeout_seconds=0)


def test_a_call_carries_its_deadline(server):
    given = []
    with GenerateClient(server.address, "gpt2", timeout_seconds=20) as client:
        predict = client._prediction.Predict

        def record(request, timeout):
            given.append(timeout)
            return predict(request, timeout=timeout)

        client._prediction.Predict = record
        client.generate("x")
    # Exact on this side. What the server sees has gone through its clock: 20.1 seconds were seen.
    assert given == [20]
    assert 10 < server.seconds_left < 60


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("INVALID_ARGUMENT", "INVALID_ARGUMENT: the server's words"),
        (
            "NOT_FOUND",
            "NOT_FOUND: the server's words (the server has no version of a model named gpt2: "
            "is the name right, and has the pipeline pushed one?)",
        ),
        (
            "DEADLINE_EXCEEDED",
            "DEADLINE_EXCEEDED: the server's words (no answer within 60 seconds: "
            "ask for fewer tokens, or allow more time)",
        ),
    ],
)
def test_a_refusal_has_the_servers_words_and_what_to_do(client, server, code, text):
    server.status = (grpc.StatusCode[code], "the server's words")
    with pytest.raises(ServingError) as raised:
        client.generate("x")
    assert raised.value.code == grpc.StatusCode[code]
    assert raised.value.details == "the server's words"
    assert str(raised.value) == text


@pytest.mark.parametrize("method", ["generate", "status"])
def test_without_a_server_the_error_says_how_to_start_one(server, method):
    server.server.stop(None).wait()
    arguments = ["x"] if method == "generate" else []
    with (
        GenerateClient(server.address, "gpt2") as client,
        pytest.raises(ServingError, match="`make serve` starts one") as raised,
    ):
        getattr(client, method)(*arguments)
    assert raised.value.code == grpc.StatusCode.UNAVAILABLE
    assert f"is a server running at {server.address}?" in str(raised.value)


def test_the_status_lists_version_state_and_error(client, server):
    assert client.status() == [VersionState(2, "END", "broken"), (1, "AVAILABLE", "")]
    assert server.requests[0].model_spec.name == "gpt2"
