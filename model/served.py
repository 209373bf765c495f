"""The signatures that a served GPT-2 has."""

# Shapes: B rows, T tokens of the longest row, N new tokens, S stop strings.

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from model.checks import check
from model.decoder import Decoder
from model.document_scorer import DocumentScorer
from model.generation import generate
from model.gpt2 import GPT2
from model.graph_tokenizer import GraphTokenizer
from model.sampling import Sampling
from model.scoring import document_nll
from model.stop_strings import cut_at_stop
from model.tokenizer import END_OF_TEXT

Outputs = dict[str, tf.Tensor]

# What a request may leave out, and what is taken then. A request gives a value for each row, or
# one for all.
OPTIONS = {
    "max_new_tokens": np.array([64], np.int32),
    "temperature": np.array([0.0], np.float32),
    "top_k": np.array([0], np.int32),
    "top_p": np.array([1.0], np.float32),
    "repetition_penalty": np.array([1.0], np.float32),
    "seed": np.array([0], np.int32),
    "truncate": np.array([False]),
    "stop": np.array([[b""]], object),
}


class ServedGPT2(DocumentScorer):
    """A GPT-2 with a tokenizer, and with the signatures that are served.

    Args:
        model: The model.
        stride: How far `score` and `evaluate` move their window, see `document_nll`.
        xla: Whether generation is compiled by XLA, see `Decoder`.
    """

    def __init__(self, model: GPT2, stride: int, xla: bool = False) -> None:
        super().__init__()
        # TensorFlow tracks its own variables here, not the model: of a Keras variable it would save
        # a copy beside the one that the graph reads, and a model server restores nothing but the
        # copy (keras issue 20095).
        self.weights = [weight.value for weight in model.weights]
        self.tokenizer = GraphTokenizer()
        self._decoder = Decoder(model, xla)
        self._document_nll = functools.partial(document_nll, model, stride=stride)

    def signatures(self) -> dict[str, Callable[..., Outputs]]:
        """Returns the signatures by name; `serving/README.md` describes them."""
        text, ids, lengths = (
            tf.TensorSpec([None], tf.string),
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None], tf.int32),
        )
        id_options = [name for name in OPTIONS if name != "stop"]
        return {
            "serving_default": _signature(self.complete, {"prompts": text}, list(OPTIONS)),
            "generate_ids": _signature(
                self.generate_ids, {"ids": ids, "lengths": lengths}, id_options
            ),
            "encode": _signature(self.encode, {"texts": text}),
            "decode": _signature(self.decode, {"ids": ids, "lengths": lengths}),
            "score": _signature(self.score, {"texts": text}),
            "evaluate": self.evaluate,
        }

    def document_nll(self, documents: tf.RaggedTensor) -> tf.Tensor:
        return self._document_nll(documents)

    def complete(self, prompts: tf.Tensor, stop: tf.Tensor, **options: tf.Tensor) -> Outputs:
        """Continues texts; an empty one is read as `<|endoftext|>`, where any document begins.

        Args:
            prompts: string [B].
            stop: string [B, S] or [1, S]: each ends the text before it; "" is none.
            **options: As in `generate_ids`.

        Returns:
            completions: string [B]: the tokens' bytes; they may end within a character.
            prompt_tokens: int32 [B]: of the whole prompts, truncated or not.
            completion_tokens: int32 [B]: with those of a stop string.
            finish_reason: string [B]: `stop` at `<|endoftext|>` or a stop string, or `length`.
        """
        encoded = self.tokenizer.encode(prompts)
        # What fills a row up is an empty row's first token at the same time.
        ids_BT = tf.pad(
            encoded.to_tensor(END_OF_TEXT), [[0, 0], [0, 1]], constant_values=END_OF_TEXT
        )
        lengths_B = tf.maximum(tf.cast(encoded.row_lengths(), tf.int32), 1)
        stop_BS = _for_each_row("stop", stop, tf.size(prompts))

        def has_stopped(ids_BN: tf.Tensor, count_B: tf.Tensor) -> tf.Tensor:
            return tf.cond(
                tf.reduce_any(stop_BS != ""),
                lambda: cut_at_stop(self.tokenizer.decode(ids_BN, count_B), stop_BS)[1],
                lambda: tf.zeros_like(count_B, tf.bool),
            )

        outputs = self._continue(ids_BT, lengths_B, options, has_stopped)
        texts = self.tokenizer.decode(outputs["ids"], outputs["lengths"])
        completions, _ = cut_at_stop(texts, stop_BS)
        return {
            "completions": completions,
            "prompt_tokens": lengths_B,
            "completion_tokens": outputs["lengths"],
            "finish_reason": outputs["finish_reason"],
        }

    def generate_ids(self, ids: tf.Tensor, lengths: tf.Tensor, **options: tf.Tensor) -> Outputs:
        """Continues prompts of ids.

        Args:
            ids: int32 [B, T].
            lengths: int32 [B]: tokens of each row, at least 1; what stands behind them is ignored.
            **options: [B] or [1] each: `max_new_tokens`, the fields of `Sampling`, and `truncate`,
                see `generate`.

        Returns:
            ids: int32 [B, N]: the new tokens, 0 beyond a row's length.
            lengths: int32 [B]: how many there are.
            finish_reason: string [B]: `stop` at `<|endoftext|>`, or `length`.
        """
        return self._continue(ids, lengths, options)

    def encode(self, texts: tf.Tensor) -> Outputs:
        """Turns texts, string [B], to `ids` int32 [B, T], 0 behind a row's end, and `lengths`."""
        ids = self.tokenizer.encode(texts)
        return {"ids": ids.to_tensor(), "lengths": tf.cast(ids.row_lengths(), tf.int32)}

    def decode(self, ids: tf.Tensor, lengths: tf.Tensor) -> Outputs:
        """Turns `ids` int32 [B, T], `lengths` int32 [B] of them in each row, to `texts`."""
        return {"texts": self.tokenizer.decode(ids, lengths)}

    def score(self, texts: tf.Tensor) -> Outputs:
        """Tells how well each text, string [B], is predicted, as a document of its own.

        Returns:
            nll: float64 [B]: the sum of -log p over its tokens and the end of text, in nats.
            tokens, bytes: int32 [B]: how many tokens that is, and the length of the text.
            perplexity: float64 [B]: exp(nll / tokens).
        """
        ids = self.tokenizer.encode(texts)
        documents = tf.concat([ids, tf.fill([tf.size(texts), 1], END_OF_TEXT)], axis=1)
        nll_B = self.document_nll(documents)
        tokens_B = documents.row_lengths()
        return {
            "nll": nll_B,
            "tokens": tf.cast(tokens_B, tf.int32),
            "bytes": tf.strings.length(texts),
            "perplexity": tf.exp(nll_B / tf.cast(tokens_B, tf.float64)),
        }

    def _continue(
        self,
        ids_BT: tf.Tensor,
        lengths_B: tf.Tensor,
        options: dict[str, tf.Tensor],
        has_stopped: Any = None,
    ) -> Outputs:
        options = {
            name: _for_each_row(name, value, tf.size(lengths_B)) for name, value in options.items()
        }
        max_new_tokens_B, truncate_B = options.pop("max_new_tokens"), options.pop("truncate")
        new_ids_BN, count_B, stopped_B = generate(
            self._decoder,
            ids_BT,
            lengths_B,
            max_new_tokens_B,
            Sampling(**options),
            truncate_B,
            has_stopped,
        )
        return {
            "ids": new_ids_BN,
            "lengths": count_B,
            "finish_reason": tf.where(stopped_B, "stop", "length"),
        }


def _signature(
    function: Callable[..., Outputs], inputs: dict[str, tf.TensorSpec], options: Sequence[str] = ()
) -> Callable[..., Outputs]:
    """Returns the function with named inputs; of the options a request may leave out any."""
    defaults = {name: tf.constant(OPTIONS[name]) for name in options}
    specs = inputs | {
        name: tf.TensorSpec([None] * default.shape.rank, default.dtype)
        for name, default in defaults.items()
    }

    def named(*arguments: tf.Tensor) -> Outputs:
        return function(**dict(zip(specs, arguments, strict=True)))

    # TensorFlow saves a parameter's default, if it is a tensor, with the signature.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    named.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, kind, default=defaults.get(name, inspect.Parameter.empty))
            for name in specs
        ]
    )
    return tf.function(
        named,
        input_signature=[
            tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()
        ],
        autograph=False,
    )


def _for_each_row(name: str, value: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Returns the option's values, one of them for all rows repeated for each."""
    given = tf.shape(value)[0]
    checked = check(
        (given == rows) | (given == 1),
        f"{name} must have a value for each of the {{}} rows, or one for all, got {{}}",
        [rows, given],
    )
    with tf.control_dependencies([checked]):
        return tf.repeat(value, tf.where(given == rows, 1, rows), axis=0)
