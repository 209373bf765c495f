"""Weights in 8 bits, for serving: a quarter of the bytes to read at each token.

Each column of a matrix, and each row of the token embedding, has a scale, 127 / its largest
absolute value; a weight times its scale is rounded to a whole number from -127 to 127, as Keras
does it. Products take the whole numbers and are divided by the scale afterwards. Activations stay
in floats: Keras' own layers round them too. Only matrices that each token reads whole are rounded:
position embedding, norms and biases are not.
"""

import gc

import keras

from model.gpt2 import GPT2


def round_to_int8(model: GPT2) -> None:
    """Rounds the weights of a built model. It can't be trained then, only scored and served."""
    # Keras collects garbage with each variable that it deletes (3.15.1, `Layer.__delattr__`), which
    # takes a fifth of a second once TensorFlow is imported, and two with TFX. Not so over frozen
    # objects.
    gc.freeze()
    try:
        model.quantize(
            "int8",
            filters=lambda layer: (
                isinstance(layer, keras.layers.Dense) or layer is model.token_embedding
            ),
        )
    finally:
        gc.unfreeze()


def int8_copy(model: GPT2) -> GPT2:
    """Returns a copy of the model with its weights rounded."""
    copy = GPT2(**model.config.to_dict())
    copy.build((None, model.config.max_length))
    for weight, source in zip(copy.weights, model.weights, strict=True):
        weight.assign(source)
    round_to_int8(copy)
    return copy
