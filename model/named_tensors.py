"""Tensors with names, as a file holds them, into a model's variables: all of them or none."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import keras
import numpy as np
import tensorflow as tf

Shape = tuple[int, ...]

# What a variable's type can hold without losing anything.
_DTYPES = {"float32": ("float32", "float16", "bfloat16"), "int8": ("int8",)}


@dataclasses.dataclass(frozen=True)
class Tensors:
    """Says what tensors a source holds; none is in memory before it is read.

    Args:
        source: The file or folder, for messages.
        shapes: The shape of each by its name.
        dtypes: Its type, as NumPy calls it.
        read: Returns the tensor of a name.
    """

    source: str
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, str]
    read: Callable[[str], np.ndarray]

    def only(self, is_wanted: Callable[[str], bool]) -> "Tensors":
        """Returns the source without the tensors whose names are not wanted."""
        wanted = {name: shape for name, shape in self.shapes.items() if is_wanted(name)}
        return dataclasses.replace(self, shapes=wanted)


def assign_all(
    variables: Mapping[str, keras.Variable],
    tensors: Tensors,
    stored_shape: Callable[[str, Shape], Shape] = lambda _name, shape: shape,
) -> None:
    """Assigns to each variable the tensor of its name; all of them fit, or none is assigned.

    Args:
        variables: What is to be assigned, by the names that the source has for them.
        tensors: The source; 16-bit tensors become float32 where the variable is.
        stored_shape: From a name and its variable's shape to the shape that the source gives the
            same numbers.

    Raises:
        ValueError: Names every tensor that is missing, extra, of another shape or of a type that
            its variable cannot hold; if there is none, every one with NaN or infinity in it.
    """
    expected = {
        name: stored_shape(name, tuple(variable.shape)) for name, variable in variables.items()
    }
    dtypes = {name: _DTYPES[variable.dtype] for name, variable in variables.items()}
    problems = _differences(expected, dtypes, tensors) or _not_finite(variables, tensors)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise ValueError(f"{tensors.source} does not hold this model's tensors:\n{listed}")
    for name, variable in variables.items():
        value = tensors.read(name).astype(variable.dtype, copy=False)
        variable.assign(value.reshape(variable.shape))


def _differences(
    expected: Mapping[str, Shape], dtypes: Mapping[str, tuple[str, ...]], tensors: Tensors
) -> list[str]:
    """Returns a line for each name that is missing, extra, or has another shape or type."""
    found = tensors.shapes
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    shared = [name for name in expected if name in found]
    return [
        *(f"missing: {name} {list(expected[name])}" for name in missing),
        *(f"extra: {name} {list(found[name])}" for name in sorted(extra)),
        *(
            f"wrong shape: {name} must be {list(expected[name])}, got {list(found[name])}"
            for name in shared
            if found[name] != expected[name]
        ),
        *(
            f"wrong type: {name} must be {', '.join(dtypes[name])}, got {tensors.dtypes[name]}"
            for name in shared
            if tensors.dtypes[name] not in dtypes[name]
        ),
    ]


def _not_finite(names: Iterable[str], tensors: Tensors) -> list[str]:
    """Returns a line for each tensor with numbers that are not finite."""
    counts = {name: int((~np.isfinite(tensors.read(name))).sum()) for name in names}
    return [f"not finite: {count} numbers of {name}" for name, count in counts.items() if count]


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

    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    return Tensors(
        source,
        {name: tuple(shape) for name, shape in shapes.items()},
        {name: dtype.name for name, dtype in dtypes.items()},
        read,
    )
