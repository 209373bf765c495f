"""A folder of a version becomes signatures that can be called, warmed up by its own requests."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from serving.signature import Signature

# TensorFlow's verbosity is the process's: models are loaded one after the other.
_loading = threading.Lock()


class LoadedModel:
    """A saved model in memory.

    Args:
        folder: What TensorFlow saved; it is not read again later.

    Raises:
        OSError: A file cannot be read.
        tf.errors.OpError: The folder holds no sound model.
    """

    def __init__(self, folder: Path) -> None:
        # Held beside its signatures because they refer to its variables only weakly.
        with _loading, _without_warnings():
            self._saved_model: Any = tf.saved_model.load(str(folder))
        self.signature_defs = _read_signature_defs(folder)
        self.signatures = {
            name: Signature(self.signature_defs[name], function)
            for name, function in self._saved_model.signatures.items()
        }


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Has TensorFlow not warn that it has no gradients of functions, which are served only."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _read_signature_defs(folder: Path) -> dict[str, meta_graph_pb2.SignatureDef]:
    """Returns what the file says of each signature: the loader keeps neither names nor defaults."""
    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((folder / "saved_model.pb").read_bytes())
    return dict(proto.meta_graphs[0].signature_def)
