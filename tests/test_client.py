"""The client against a server that records what it gets and answers as it is told."""

import re
from collections.abc import Iterator

import grpc
import pytest

from serving.client import (
    Completion,
    GenerateClient,
    Piece,
    ServingError,
    TextScore,
    VersionState,
)
from serving.connection import tls_credentials
from tests.reciting_server import CONTEXT, FIRST_ID, VERSION, RecitingServer
from tests.test_imports import ROOT, imported_modules
from tests.test_tls import make_identity

END_OF_TEXT = 50256


@pytest.fixture
def server() -> Iterator[RecitingServer]:
    server = RecitingServer()
    yield server
    server.stop()


@pytest.fixture
def client(server: RecitingServer) -> Iterator[GenerateClient]:
    with GenerateClient(server.address, "gpt2") as client:
        yield client


def test_the_client_needs_neither_the_models_code_nor_a_tokenizer():
    files = [
        ROOT / "serving" / f"{name}.py"
        for name in ("__init__", "client", "connection", "generate_options", "streaming")
    ]
    modules = [name for file in files for _, name in imported_modules(file.read_text())]
    assert "grpc" in modules
    assert not {name.split(".")[0] for name in modules} & {"model", "keras", "tiktoken"}


def test_a_prompt_is_sent_as_it_is_with_every_input_for_servers_without_defaults(client, server):
    client.generate("naïve <|endoftext|>")
    assert server.requests[0].model_spec.name == "gpt2"
    assert server.sent("serving_default") == [
        {
            "prompts": ["naïve <|endoftext|>".encode()],
            "max_new_tokens": [64],
            "temperature": [0.0],
            "top_k": [0],
            "top_p": [1.0],
            "repetition_penalty": [1.0],
            "seed": [0],
            "stop": [[b""]],
            "truncate": [False],
        }
    ]


def test_inputs_have_the_dtypes_of_the_signatures(client, server):
    list(client.stream("x", max_new_tokens=2, temperature=1, top_p=1, stop=["y"]))
    dtypes = {
        name: tensor.dtype for request in server.requests for name, tensor in request.inputs.items()
    }
    types = {"float32": 1, "int32": 3, "string": 7, "bool": 10}  # as TensorFlow numbers them
    assert dtypes == {
        "prompts": types["string"],
        "texts": types["string"],
        "stop": types["string"],
        "ids": types["int32"],
        "lengths": types["int32"],
        "max_new_tokens": types["int32"],
        "temperature": types["float32"],
        "top_k": types["int32"],
        "top_p": types["float32"],
        "repetition_penalty": types["float32"],
        "seed": types["int32"],
        "truncate": types["bool"],
    }


def test_a_list_of_prompts_is_one_request_with_a_row_for_each(client, server):
    completions = client.generate(
        ["To be", "Who"],
        max_new_tokens=3,
        temperature=0.5,
        top_k=4,
        top_p=0.25,
        repetition_penalty=1.5,
        seed=-6,
        stop=["\n", b"\xff"],
        truncate=True,
    )
    assert completions == [
        Completion(" or not or", 3, VERSION, num_prompt_tokens=5, finish_reason="length"),
        Completion(" or not or", 3, VERSION, num_prompt_tokens=3, finish_reason="length"),
    ]
    assert server.sent("serving_default") == [
        {
            "prompts": [b"To be", b"Who"],
            "max_new_tokens": [3, 3],
            "temperature": [0.5, 0.5],
            "top_k": [4, 4],
            "top_p": [0.25, 0.25],
            "repetition_penalty": [1.5, 1.5],
            "seed": [-6, -6],
            "stop": [[b"\n", b"\xff"]] * 2,
            "truncate": [True, True],
        }
    ]


def test_one_prompt_gives_one_completion(client, server):
    server.ends = True
    assert client.generate("To be") == Completion(
        " or not", 2, VERSION, num_prompt_tokens=5, finish_reason="stop"
    )


def test_a_character_that_was_cut_is_shown_as_the_replacement_character(client, server):
    server.tokens = [b" ", "\N{WATER WAVE}".encode()[:3]]
    assert client.generate("x", max_new_tokens=2).text == " \N{REPLACEMENT CHARACTER}"


def test_an_answer_of_more_than_four_mebibytes_is_taken(client, server):
    server.tokens = [b"!" * 5_000_000]
    assert len(client.generate("x", max_new_tokens=1).text) == 5_000_000


@pytest.mark.parametrize("method", ["generate", "stream"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be a whole number from 1 to"),
        ({"max_new_tokens": 1.5}, "max_new_tokens is 1.5; it must be a whole number"),
        ({"temperature": -1.0}, "temperature is -1.0; it must be 0 or more"),
        ({"temperature": float("nan")}, "temperature is nan; it must be 0 or more"),
        ({"temperature": float("inf")}, "temperature is inf; .* finite"),
        ({"top_k": -1}, "top_k is -1; it must be a whole number from 0 to"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p is 1.1; it must be above 0 and at most 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0; it must be above 0"),
        ({"seed": 2**31}, "seed is 2147483648; it must be a whole number from"),
        ({"stop": "."}, "stop is '.'; it must be a list of strings, none empty"),
        ({"stop": [""]}, r"stop is \[''\]; it must be a list of strings, none empty"),
    ],
)
def test_a_value_out_of_range_is_an_error_before_anything_is_sent(
    client, server, method, options, message
):
    with pytest.raises(ValueError, match=message):
        getattr(client, method)("x", **options)
    assert server.requests == []


def test_no_texts_at_all_are_an_error(client):
    with pytest.raises(ValueError, match="prompt is an empty list"):
        client.generate([])
    with pytest.raises(ValueError, match="text is an empty list"):
        client.score([])


@pytest.mark.parametrize("value", [None, 5, b"x", ["x", 5]])
def test_what_is_no_text_is_an_error(client, server, value):
    with pytest.raises(TypeError, match=re.escape(f"list of them, got {value!r}")):
        client.generate(value)
    with pytest.raises(TypeError, match="text must be a str or a list of them"):
        client.score(value)
    with pytest.raises(TypeError, match=f"prompt must be a str, got {re.escape(repr(value))}"):
        client.stream(value)
    assert server.requests == []


def test_a_client_that_cannot_work_is_an_error():
    with pytest.raises(ValueError, match="timeout_seconds is 0; it must be above 0"):
        GenerateClient("127.0.0.1:1", "gpt2", timeout_seconds=0)
    with pytest.raises(ValueError, match="version is 3 and version_label 'stable'; only one"):
        GenerateClient("127.0.0.1:1", "gpt2", version=3, version_label="stable")
    with pytest.raises(ValueError, match="certificate is a and key is None; one needs"):
        tls_credentials(certificate="a")


def call_everything(client: GenerateClient) -> None:
    client.generate("x")
    list(client.stream("x", max_new_tokens=2))
    client.score("x")
    client.status()


def test_every_call_has_a_deadline_and_the_callers_metadata(server):
    # gRPC adds its own.
    metadata = [("authorization", "Bearer 1"), ("x-team", "a")]
    with GenerateClient(server.address, "gpt2", timeout_seconds=20, metadata=metadata) as client:
        call_everything(client)
    assert len(server.requests) == 9
    for given, seconds in zip(server.metadata, server.seconds_left, strict=True):
        assert given["authorization"] == "Bearer 1"
        assert given["x-team"] == "a"
        # It has gone through the server's clock: 20.1 seconds were seen.
        assert 10 < seconds < 30


@pytest.mark.parametrize("choice", [{"version": 3}, {"version_label": "stable"}, {}])
def test_every_call_asks_for_the_version_that_the_client_wants(server, choice):
    with GenerateClient(server.address, "gpt2", **choice) as client:
        call_everything(client)
    for request in server.requests:
        spec = request.model_spec
        assert spec.name == "gpt2"
        assert spec.HasField("version") == ("version" in choice)
        assert spec.version.value == choice.get("version", 0)
        assert spec.version_label == choice.get("version_label", "")


def test_a_call_that_finds_the_server_unavailable_is_made_again(client, server):
    server.unavailable = 2
    assert client.generate("x", max_new_tokens=1).text == " or"
    assert len(server.requests) == 3
    server.unavailable = 2
    assert client.status()[0].version == 2
    assert len(server.requests) == 6


def test_a_server_that_stays_unavailable_is_asked_five_times(client, server):
    server.unavailable = 100
    with pytest.raises(ServingError, match=f"UNAVAILABLE: not now .*at {server.address}"):
        client.generate("x")
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("INVALID_ARGUMENT", "INVALID_ARGUMENT: the server's words"),
        (
            "NOT_FOUND",
            "NOT_FOUND: the server's words (the server has no model named gpt2, or not that "
            "version of it: is the name right, and has the pipeline pushed one?)",
        ),
        (
            "DEADLINE_EXCEEDED",
            "DEADLINE_EXCEEDED: the server's words (no answer within 60 seconds: "
            "ask for fewer tokens, or allow more time)",
        ),
    ],
)
def test_a_refusal_has_the_servers_words_and_what_to_do_and_is_not_asked_for_again(
    client, server, code, text
):
    server.status = (grpc.StatusCode[code], "the server's words")
    with pytest.raises(ServingError) as raised:
        client.generate("x")
    assert raised.value.code == grpc.StatusCode[code]
    assert raised.value.details == "the server's words"
    assert str(raised.value) == text
    assert len(server.requests) == 1


def test_without_a_server_the_error_says_how_to_start_one(client, server):
    server.stop()
    with pytest.raises(ServingError, match="`make serve` starts one") as raised:
        client.status()
    assert raised.value.code == grpc.StatusCode.UNAVAILABLE
    assert f"is a server running at {server.address}, done with loading" in str(raised.value)


def test_a_server_that_demands_certificates_is_talked_to_by_tls(tmp_path):
    ours, theirs = (make_identity(tmp_path, name) for name in ("client", "server"))
    server = RecitingServer(
        grpc.ssl_server_credentials(
            [(theirs.key_file.read_bytes(), theirs.certificate_file.read_bytes())],
            root_certificates=ours.certificate_file.read_bytes(),
            require_client_auth=True,
        )
    )
    credentials = tls_credentials(theirs.certificate_file, ours.certificate_file, ours.key_file)
    with GenerateClient(server.address, "gpt2", credentials=credentials) as client:
        assert client.generate("x", max_new_tokens=1).text == " or"
    server.stop()


def test_the_status_lists_version_state_and_error(client, server):
    assert client.status() == [VersionState(2, "END", "broken"), (1, "AVAILABLE", "")]


def test_texts_are_scored_in_order(client, server):
    assert client.score("abc") == TextScore(6.0, num_tokens=4, num_bytes=3, perplexity=9.0)
    assert client.score(["", "ab"]) == [TextScore(0.0, 1, 0, 0.0), TextScore(4.0, 3, 2, 6.0)]
    assert server.sent("score") == [{"texts": [b"abc"]}, {"texts": [b"", b"ab"]}]


WAVE = "\N{WATER WAVE}".encode()


@pytest.mark.parametrize(
    ("tokens", "ends", "options"),
    [
        ([b" or", b" not"], False, {}),
        ([b" or", b" not"], False, {"max_new_tokens": 1}),
        ([b" or", b" not"], False, {"max_new_tokens": 2}),
        ([b"a", b" wave ", WAVE[:1], WAVE[1:2], WAVE[2:], b"."], True, {}),
        ([b"cut", WAVE[:3]], True, {}),
        ([b"cut", WAVE[:3]], False, {"max_new_tokens": 2}),
        ([], True, {}),
        # The end of the first, second and third piece: 1, 3, and 7 tokens.
        ([b"a"], True, {}),
        ([b"a", b"b", b"c"], True, {}),
        ([b"a", b"b", b"c", b"d", b"e", b"f", b"g"], True, {"max_new_tokens": 7}),
        # Stop strings across tokens and pieces, at a piece's end, and one that never comes.
        ([b"To", b" be", b",", b" or"], False, {"stop": ["e, o"]}),
        ([b"To", b" be", b",", b" or"], False, {"stop": [" be"]}),
        ([b"To", b" be", b",", b" or"], True, {"stop": [" or not"]}),
        ([b"To", b" be", b",", b" or"], False, {"stop": [" or not"], "max_new_tokens": 4}),
        ([b"To", b" be", b",", b" or"], False, {"stop": ["To"], "max_new_tokens": 1}),
        ([b"a\n", b"\nb"], False, {"stop": ["b", "\n\n"]}),
    ],
)
def test_a_text_in_pieces_is_the_text_at_once(client, server, tokens, ends, options):
    server.tokens, server.ends = tokens, ends
    whole = client.generate("To be", **options)
    pieces = list(client.stream("To be", **options))
    assert "".join(piece.text for piece in pieces) == whole.text
    assert pieces[-1].num_tokens == whole.num_tokens
    assert [piece.finish_reason for piece in pieces if piece.finish_reason] == [whole.finish_reason]
    assert pieces[-1].finish_reason == whole.finish_reason
    assert all(piece.text for piece in pieces[:-1])


def test_pieces_are_asked_for_with_all_that_came_so_far(client, server):
    options = {"temperature": 0.5, "top_k": 4, "top_p": 0.25, "repetition_penalty": 1.5, "seed": 9}
    pieces = list(client.stream("ab", max_new_tokens=6, **options))
    assert pieces == [
        Piece(" or", 1, ""),
        Piece(" not or", 3, ""),
        Piece(" not or not", 6, "length"),
    ]
    ids = [*b"ab", FIRST_ID, FIRST_ID + 1, FIRST_ID]
    for request, length, count in zip(
        server.sent("generate_ids"), (2, 3, 5), (1, 2, 3), strict=True
    ):
        assert request == {
            "ids": [ids[:length]],
            "lengths": [length],
            "max_new_tokens": [count],
            "truncate": [False],
            **{name: [value] for name, value in options.items()},
        }


def test_a_piece_is_there_before_the_next_is_asked_for(client, server):
    pieces = client.stream("ab", max_new_tokens=6)
    assert next(pieces).text == " or"
    assert len(server.sent("generate_ids")) == 1


def test_nothing_is_asked_for_after_a_stop_string(client, server):
    pieces = list(client.stream("ab", stop=["not"]))
    assert pieces == [Piece(" or", 1, ""), Piece(" ", 2, "stop")]
    assert len(server.sent("generate_ids")) == 2


def test_an_empty_prompt_is_continued_in_pieces_as_the_start_of_a_document(client, server):
    assert next(client.stream("")).text == " or"
    assert server.sent("generate_ids")[0]["ids"] == [[END_OF_TEXT]]
    assert server.sent("generate_ids")[0]["lengths"] == [1]


def test_a_text_that_does_not_fit_the_context_is_an_error_before_the_first_piece(client, server):
    assert sum(piece.finish_reason == "length" for piece in client.stream("x" * 36)) == 1
    server.requests.clear()
    with pytest.raises(ServingError, match=f"37 and 64 new tokens exceed {CONTEXT}") as raised:
        next(client.stream("x" * 37))
    assert raised.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert server.sent("generate_ids") == []


def test_a_text_with_a_truncated_prompt_comes_as_one_piece(client, server):
    assert len(list(client.stream("x" * 36, truncate=True))) > 1
    whole = client.generate("x" * 37, truncate=True)
    assert whole.num_prompt_tokens == 37
    assert list(client.stream("x" * 37, truncate=True)) == [Piece(whole.text, 64, "length")]
