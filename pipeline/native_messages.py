"""TensorFlow's start without what its C++ code prints at every one."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


def start_tensorflow() -> None:
    """Imports TensorFlow and has it look for devices, without its saying what it did not find."""
    with _native_messages_hidden():
        import tensorflow as tf

        # Also the first graph with an op that oneDNN has for some types only says so, once.
        signature = [tf.TensorSpec([None, None], tf.int64)]
        tf.function(tf.transpose, input_signature=signature)(tf.zeros([1, 1], tf.int64))


@contextlib.contextmanager
def _native_messages_hidden() -> Iterator[None]:
    """Keeps what C++ code writes to stderr off it, and shows it if there is an error after all.

    Nothing else turns those lines off.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except BaseException:
            file.seek(0)
            os.write(stderr, file.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
