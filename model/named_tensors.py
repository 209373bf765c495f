"""Tensors with names, as a file holds them, into a model's variables: all of them or none."""

import dataclasses
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Tensors:
    """Says what tensors a source holds; none is in memory before it is read.

    Args:
        source: The file or folder, for messages.
        shapes: The shape of each by its name.
        read: Returns the tensor of a name.
    """

    source: str
    shapes: Mapping[str, Shape]
    read: Callable[[str], np.ndarray]


def assign_all(variables: Mapping[str, keras.Variable], tensors: Tensors) -> None:
    """Assigns to each variable the tensor of its name; all of them fit, or none is assigned.

    Args:
        variables: What is to be assigned, by the names that the source has for them.
        tensors: The source.

    Raises:
        ValueError: Names every tensor that is missing, extra or of another shape.
    """
    expected = {name: tuple(variable.shape) for name, variable in variables.items()}
    problems = differences(expected, tensors.shapes)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise ValueError(f"{tensors.source} does not hold this model's tensors:\n{listed}")
    for name, variable in variables.items():
        variable.assign(tensors.read(name))


def differences(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> list[str]:
    """Returns a line for each name that is missing, extra or has another shape."""
    problems = [
        f"missing: {name} {list(shape)}" for name, shape in expected.items() if name not in found
    ]
    problems += [
        f"extra: {name} {list(shape)}"
        for name, shape in sorted(found.items())
        if name not in expected
    ]
    problems += [
        f"wrong shape: {name} must be {list(shape)}, got {list(found[name])}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    return problems


def checkpoint_tensors(source: str, prefix: str) -> Tensors:
    """Returns the tensors of a TensorFlow checkpoint.

    Args:
        source: The file or folder, for messages.
        prefix: What `.index` and `.data-...` are appended to in the checkpoint's files.

    Raises:
        ValueError: The checkpoint cannot be read; `read` raises it too.
    """
    # TensorFlow's reader raises whatever its C++ code's error comes closest to.
    unreadable = (tf.errors.OpError, LookupError, RuntimeError)
    try:
        reader = tf.train.load_checkpoint(prefix)
    except unreadable as error:
        raise ValueError(f"{source} is not a whole checkpoint: {error}") from error

    def read(name: str) -> np.ndarray:
        try:
            return reader.get_tensor(name)
        except unreadable as error:
            raise ValueError(f"{source} is not a whole checkpoint: {name}: {error}") from error

    shapes = reader.get_variable_to_shape_map()
    return Tensors(source, {name: tuple(shape) for name, shape in shapes.items()}, read)
