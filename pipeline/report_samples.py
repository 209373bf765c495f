"""What a pushed model writes, for the report."""

import dataclasses

import tensorflow as tf

from model.export import read_description
from model.served import OPTIONS

# The same for every model, so that reports can be compared. The first is where a document begins.
PROMPTS = ("", "The", "I have", "Once upon a time", "To be, or not to be")

# At the most: a small model's context has fewer.
NEW_TOKENS = 60

# How the second text is drawn: with these the choice is varied, and rarely absurd.
SAMPLING = {"temperature": 0.8, "top_p": 0.95, "seed": 1}


@dataclasses.dataclass(frozen=True)
class Sample:
    """A prompt, and how a model continues it: by the likeliest tokens, and drawn at random."""

    prompt: str
    greedy: str
    sampled: str


def write_samples(folder: str) -> list[Sample]:
    """Returns how the model in `folder`, an exported SavedModel, continues each prompt.

    The same model gives the same texts.

    Raises:
        ValueError: The folder holds no model that was exported here.
    """
    context = read_description(folder)["model"]["max_length"]
    loaded = tf.saved_model.load(folder)  # signatures don't keep their variables alive
    # Half of it: the longest prompt has six tokens, and the smallest context that is used 32.
    limit = {"max_new_tokens": min(NEW_TOKENS, context // 2)}
    signature = loaded.signatures["serving_default"]
    greedy, sampled = _complete(signature, limit), _complete(signature, limit | SAMPLING)
    return [Sample(*texts) for texts in zip(PROMPTS, greedy, sampled, strict=True)]


def _complete(signature: tf.types.experimental.ConcreteFunction, options: dict) -> list[str]:
    inputs = {
        name: tf.constant([options[name]], default.dtype) if name in options else default
        for name, default in OPTIONS.items()
    }
    answer = signature(
        prompts=tf.constant(PROMPTS),
        **{name: tf.convert_to_tensor(value) for name, value in inputs.items()},
    )
    # The last token may end within a character.
    return [text.decode("utf-8", errors="replace") for text in answer["completions"].numpy()]
