"""A client of a served GPT-2: text in, text out.

It works the same against our server and a stock TensorFlow Serving: nothing is called but what both
have, and every input of a signature is sent, as servers that know no defaults demand. It needs
neither a tokenizer nor the model's code. Importing it imports all of TensorFlow, which takes
seconds: tensorflow-serving-api's messages need `TensorProto`, which no other package has.
"""

import dataclasses
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NamedTuple, overload

import grpc
import numpy as np
from tensorflow_serving.apis import get_model_status_pb2

from serving.connection import Connection, ServingError
from serving.generate_options import GenerateOptions
from serving.streaming import ShownText, piece_sizes

# `<|endoftext|>`, after which a document begins.
_END_OF_TEXT = 50256

_EVERY_BYTE = [bytes([value]) for value in range(256)]


@dataclasses.dataclass(frozen=True)
class Completion:
    """What the model wrote after a prompt.

    Args:
        text: The new text, without the prompt. Tokens are parts of UTF-8: where the last one cuts
            a character, or the model wrote no UTF-8, it holds the replacement character.
        num_tokens: How many tokens were written, those of a stop string among them.
        model_version: The version of the model that wrote it.
        num_prompt_tokens: How many tokens the prompt has, also if it was truncated.
        finish_reason: `stop` if the model ended its text or wrote a stop string, else `length`.
    """

    text: str
    num_tokens: int
    model_version: int
    num_prompt_tokens: int
    finish_reason: str


class Piece(NamedTuple):
    """A part of a text that is being written: how it goes on.

    `num_tokens` is how many tokens have been written up to here, `finish_reason` is "" until the
    last piece, which has `Completion`'s.
    """

    text: str
    num_tokens: int
    finish_reason: str


class TextScore(NamedTuple):
    """How well the model predicts a text.

    `nll` is the sum of -log p, in nats, over `num_tokens` tokens, the end of text being one of
    them; `num_bytes` the text's length in UTF-8; `perplexity` exp(nll / num_tokens).
    """

    nll: float
    num_tokens: int
    num_bytes: int
    perplexity: float


class VersionState(NamedTuple):
    """One version at the server: its state (`AVAILABLE`, `END`, ...), and an error or ""."""

    version: int
    state: str
    error: str


class GenerateClient:
    """Continues and scores texts by a served GPT-2; a context manager, usable by several threads.

    Args:
        address: The server's `host:port`.
        model_name: The name under which the server has the model.
        timeout_seconds: How long a call may take, in seconds; `stream` makes one for each piece.
        **connection: Of `Connection`: `version` or `version_label`; `metadata`, sent with every
            call, such as `[("authorization", "Bearer ...")]`; `credentials` for TLS, see
            `tls_credentials`.
    """

    def __init__(
        self, address: str, model_name: str, timeout_seconds: float = 60.0, **connection: Any
    ) -> None:
        self.address = address
        self._connection = Connection(address, model_name, timeout_seconds, **connection)

    @overload
    def generate(self, prompt: str, **options: Any) -> Completion: ...

    @overload
    def generate(self, prompt: list[str], **options: Any) -> list[Completion]: ...

    def generate(self, prompt: str | list[str], **options: Any) -> Completion | list[Completion]:
        """Returns the continuation of a prompt; of a list of prompts, one for each, in order.

        Args:
            prompt: The text to continue. An empty one is given to the model as `<|endoftext|>`,
                after which it starts a document of its own. That string within a prompt is text
                like any other.
            **options: The fields of `GenerateOptions`.

        Raises:
            TypeError: `prompt` is something else.
            ValueError: An option is out of its range.
            ServingError: The server refused the call, or did not answer in time.
        """
        completions = self._complete(_as_list("prompt", prompt), GenerateOptions(**options))
        return completions[0] if isinstance(prompt, str) else completions

    def stream(self, prompt: str, **options: Any) -> Iterator[Piece]:
        """Yields the continuation piece by piece; joined, they are the text that `generate` gives.

        Each piece is a call of its own with all that came so far. What does not fit the model's
        context is an error before the first piece, or, if the prompt may be truncated, comes as one
        piece. A version that goes live meanwhile writes the rest, unless the client asks for one.

        Args:
            prompt: As in `generate`, but one text alone.
            **options: As in `generate`.

        Raises:
            TypeError: `prompt` is no str.
            ValueError: An option is out of its range.
            ServingError: The server refused a call, or did not answer one in time.
        """
        if not isinstance(prompt, str):
            raise TypeError(f"prompt must be a str, got {prompt!r}")
        # Not in the generator, which would raise its errors when the first piece is asked for.
        return self._stream(prompt, GenerateOptions(**options))

    @overload
    def score(self, text: str) -> TextScore: ...

    @overload
    def score(self, text: list[str]) -> list[TextScore]: ...

    def score(self, text: str | list[str]) -> TextScore | list[TextScore]:
        """Returns how well the model predicts a text; of a list of texts, one for each, in order.

        Raises:
            TypeError: `text` is something else.
            ServingError: The server refused the call, or did not answer in time.
        """
        texts = _bytes_array([text.encode() for text in _as_list("text", text)])
        outputs, _ = self._connection.predict("score", {"texts": texts})
        scores = [TextScore(*row) for row in _rows(outputs, "nll", "tokens", "bytes", "perplexity")]
        return scores[0] if isinstance(text, str) else scores

    def status(self) -> list[VersionState]:
        """Returns the versions that the server knows, newest first, or the one that is asked for.

        Raises:
            ServingError: The server does not know the model, or did not answer in time.
        """
        state_name = get_model_status_pb2.ModelVersionStatus.State.Name
        return [
            VersionState(entry.version, state_name(entry.state), entry.status.error_message)
            for entry in self._connection.status().model_version_status
        ]

    def close(self) -> None:
        """Lets go of the connection."""
        self._connection.close()

    def __enter__(self) -> "GenerateClient":
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _complete(self, prompts: list[str], options: GenerateOptions) -> list[Completion]:
        rows = len(prompts)  # a stock server that batches wants as many of everything
        outputs, version = self._connection.predict(
            "serving_default",
            {
                "prompts": _bytes_array([prompt.encode() for prompt in prompts]),
                "max_new_tokens": np.full(rows, options.max_new_tokens, np.int32),
                **options.sampling_inputs(rows),
                "stop": _bytes_array([options.stop_bytes() or [b""]] * rows),
                "truncate": np.full(rows, options.truncate),
            },
        )
        return [
            Completion(text.decode(errors="replace"), written, version, read, reason.decode())
            for text, written, read, reason in _rows(
                outputs, "completions", "completion_tokens", "prompt_tokens", "finish_reason"
            )
        ]

    def _stream(self, prompt: str, options: GenerateOptions) -> Iterator[Piece]:
        if options.max_new_tokens == 1 or not self._fits(prompt, options):
            (whole,) = self._complete([prompt], options)
            yield Piece(whole.text, whole.num_tokens, whole.finish_reason)
            return
        outputs, _ = self._connection.predict("encode", {"texts": _bytes_array([prompt.encode()])})
        ids = outputs["ids"][0, : outputs["lengths"][0]].tolist() or [_END_OF_TEXT]
        shown = ShownText(options.stop_bytes())
        num_tokens = 0
        for size in piece_sizes(options.max_new_tokens):
            outputs, _ = self._connection.predict(
                "generate_ids",
                {
                    "ids": np.array([ids], np.int32),
                    "lengths": np.array([len(ids)], np.int32),
                    "max_new_tokens": np.array([size], np.int32),
                    **options.sampling_inputs(1),
                    "truncate": np.array([False]),
                },
            )
            new_ids = outputs["ids"][0, : outputs["lengths"][0]].tolist()
            text = ""
            for token in self._token_bytes(new_ids):
                text += shown.add(token)
                num_tokens += 1
                if shown.has_stopped:
                    break
            ids += new_ids
            has_stopped = shown.has_stopped or outputs["finish_reason"][0] == b"stop"
            if has_stopped or num_tokens == options.max_new_tokens:
                reason = "stop" if has_stopped else "length"
                yield Piece(text + shown.end(), num_tokens, reason)
                return
            if text:
                yield Piece(text, num_tokens, "")

    def _fits(self, prompt: str, options: GenerateOptions) -> bool:
        """Tells whether all of the text can be asked for in pieces, without a truncated prompt.

        Otherwise the last pieces would fail when the first ones were shown. Servers do not tell the
        context, so the whole text is asked for, with every byte for a stop string: this ends it at
        its first token.

        Raises:
            ServingError: It does not fit, and the prompt may not be truncated.
        """
        to_first_token = dataclasses.replace(options, stop=_EVERY_BYTE, truncate=False)
        try:
            self._complete([prompt], to_first_token)
        except ServingError as error:
            if options.truncate and error.code == grpc.StatusCode.INVALID_ARGUMENT:
                return False
            raise
        return True

    def _token_bytes(self, ids: list[int]) -> list[bytes]:
        """Returns each token's bytes by itself, so that the one that ends the text is known."""
        if not ids:
            return []
        rows = {
            "ids": np.array(ids, np.int32)[:, np.newaxis],
            "lengths": np.ones(len(ids), np.int32),
        }
        return self._connection.predict("decode", rows)[0]["texts"].tolist()


def _as_list(name: str, texts: str | list[str]) -> list[str]:
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{name} must be a str or a list of them, got {texts!r}")
    if not texts:
        raise ValueError(f"{name} is an empty list; it must hold at least one text")
    return texts


def _bytes_array(values: Any) -> np.ndarray:
    # As objects: NumPy's own strings of bytes lose the zeros at their end.
    return np.array(values, object)


def _rows(outputs: dict[str, np.ndarray], *names: str) -> Iterator[tuple[Any, ...]]:
    """Yields the outputs of these names row by row, as Python's own types."""
    return zip(*(outputs[name].tolist() for name in names), strict=True)
