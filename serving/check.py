"""Whether a model can be served: it is served here, and asked what clients and others may ask.

    python -m serving.check FOLDER

Prints what it found. The exit status is 0 if all is well, and 1 if the model is not to be pushed.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from tensorflow_serving.apis import get_model_status_pb2

from serving.connection import Connection, ServingError
from serving.options import ServerOptions
from serving.server import Server

_NAME = "candidate"
_SECONDS = 120.0  # for one answer

_OK = grpc.StatusCode.OK
_INVALID = grpc.StatusCode.INVALID_ARGUMENT

# Texts that went wrong elsewhere; the last is no UTF-8.
_TEXTS = [
    b"To be",
    b"",
    b" \n\n ",
    "naïve 👩‍👩‍👧 <|endoftext|>".encode(),
    b"x" * 5000,
    b"\xff\xfe",
]


@dataclasses.dataclass(frozen=True)
class _Request:
    """What is asked, of which signature, and the status that must come back."""

    description: str
    signature: str
    inputs: dict[str, Any]
    code: grpc.StatusCode = _OK


def check_model(folder: str | Path) -> Iterator[str]:
    """Yields a line for all that is wrong with the model in `folder`: none if it can be served.

    The embedded server loads it, which replays the warm-up requests that the model brings. Then
    come requests as clients send them, and such as must be refused, each with its status; at the
    end the first one once more, which must be answered as before.
    """
    if not (Path(folder) / "saved_model.pb").is_file():
        yield f"{folder} has no saved_model.pb"
        return
    with tempfile.TemporaryDirectory(prefix="serving-check-") as base:
        (Path(base) / "1").symlink_to(Path(folder).absolute(), target_is_directory=True)
        with Server(base, _NAME, ServerOptions(port=0), report=lambda line: None) as server:
            connection = Connection(server.address, _NAME, _SECONDS)
            try:
                trouble = _load_trouble(connection)
                if trouble:
                    yield trouble
                    return
                yield from _wrong_answers(connection)
            finally:
                connection.close()


def _load_trouble(connection: Connection) -> str | None:
    (status,) = connection.status().model_version_status
    if status.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE:
        return None
    return f"the server cannot load it: {status.status.error_message}"


def _wrong_answers(connection: Connection) -> Iterator[str]:
    first = _Request("a prompt", "serving_default", {"prompts": ["To be"], "max_new_tokens": [1]})
    before, _ = _ask(connection, first)
    for request in (first, *_ordinary(), *_hostile()):
        _, found = _ask(connection, request)
        if found[0] != request.code:
            yield f"{request.description}: expected {request.code.name}, got {_described(found)}"
    yield from _wrong_round_trips(connection)
    after, found = _ask(connection, first)
    if after != before:
        yield f"a prompt: another answer than at first, {_described(found)}"


def _ordinary() -> list[_Request]:
    sampled = {"temperature": [0.8], "top_k": [40], "top_p": [0.9], "seed": [1]}
    return [
        _Request(
            "several prompts, sampled",
            "serving_default",
            {"prompts": ["To be", "", "Now is"], "max_new_tokens": [2, 1, 0], **sampled},
        ),
        _Request(
            "a prompt that may be truncated",
            "serving_default",
            {"prompts": ["word " * 3000], "max_new_tokens": [1], "truncate": [True]},
        ),
        _Request("texts to score", "score", {"texts": ["To be, or not to be", ""]}),
    ]


def _hostile() -> list[_Request]:
    return [
        _Request("a signature that is unknown", "none", {}, grpc.StatusCode.FAILED_PRECONDITION),
        _Request("no inputs", "serving_default", {}, _INVALID),
        _Request("an unknown input", "encode", {"texts": ["a"], "more": [1]}, _INVALID),
        _Request("numbers for texts", "encode", {"texts": [1]}, _INVALID),
        _Request("texts of two dimensions", "encode", {"texts": [["a"]]}, _INVALID),
        _Request(
            "a prompt beyond any context", "serving_default", {"prompts": ["a " * 20000]}, _INVALID
        ),
        _Request(
            "an id that is no token", "generate_ids", {"ids": [[-1]], "lengths": [1]}, _INVALID
        ),
        _Request(
            "a length beyond the row", "generate_ids", {"ids": [[1]], "lengths": [2]}, _INVALID
        ),
        _Request(
            "a temperature that is no number",
            "serving_default",
            {"prompts": ["a"], "max_new_tokens": [1], "temperature": [float("nan")]},
            _INVALID,
        ),
        _Request(
            "an id beyond the vocabulary", "decode", {"ids": [[60000]], "lengths": [1]}, _INVALID
        ),
    ]


def _wrong_round_trips(connection: Connection) -> Iterator[str]:
    """Yields a line for each text that encoding and decoding do not bring back."""
    encoded, found = _ask(connection, _Request("", "encode", {"texts": _TEXTS}))
    decoded: dict[str, Any] = {}
    if encoded:
        decoded, found = _ask(connection, _Request("", "decode", encoded))
    if not decoded:
        yield f"texts to encode and decode: expected OK, got {_described(found)}"
        return
    for text, back in zip(_TEXTS, decoded["texts"], strict=True):
        sent = text.decode(errors="replace")
        if back != sent.encode():
            yield f"encode and decode: expected {sent[:50]!r}, got {back[:50]!r}"


def _ask(
    connection: Connection, asked: _Request
) -> tuple[dict[str, Any], tuple[grpc.StatusCode, str]]:
    """Returns the outputs, none if it failed, and the status with its message."""
    try:
        outputs, _ = connection.predict(asked.signature, asked.inputs)
    except ServingError as error:
        return {}, (error.code, error.details)
    return {name: value.tolist() for name, value in outputs.items()}, (_OK, "")


def _described(status: tuple[grpc.StatusCode, str]) -> str:
    code, message = status
    return f"{code.name}: {message}" if message else code.name


def main() -> int:
    """Checks the model that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.check", description="Tell whether a model can be served."
    )
    parser.add_argument("folder", metavar="FOLDER", help="folder with saved_model.pb")
    troubles = list(check_model(parser.parse_args().folder))
    print("\n".join(troubles) or "it can be served")
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
