"""A version runs the requests that it brings along before it is served.

The first run of a signature is slow: TensorFlow prepares its graph, and XLA compiles it. A model
brings requests in `assets.extra/tf_serving_warmup_requests`, as TensorFlow Serving reads them.
"""

import itertools
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.python.eager import cancellation
from tensorflow_serving.apis import prediction_log_pb2

from serving.batching import as_arrays, run_together
from serving.errors import RequestError, from_graph
from serving.loading import LoadedModel
from serving.options import ServerOptions
from serving.predict import choose_outputs, find_signature, read_inputs
from serving.rows import count_rows

WARM_UP_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000  # TensorFlow Serving's own limit


def load_and_warm_up(folder: Path, options: ServerOptions) -> LoadedModel:
    """Returns the model in a folder, which has answered its own requests if options say so.

    Raises:
        OSError: A file cannot be read.
        tf.errors.OpError: The folder holds no sound model, or the warm-up file is damaged.
        ValueError: A request failed, is of another kind than Predict, or there are too many.
    """
    model = LoadedModel(folder)
    file = folder / WARM_UP_FILE
    if options.warm_up and file.is_file():
        records = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
        for number, record in enumerate(itertools.islice(records, MAX_RECORDS + 1), start=1):
            if number > MAX_RECORDS:
                raise ValueError(f"{file} must have at most {MAX_RECORDS} records, got more")
            try:
                _replay(model, record, options)
            except (RequestError, ValueError, DecodeError) as error:
                raise ValueError(f"warm-up request {number} in {file} failed: {error}") from error
    return model


def _replay(model: LoadedModel, record: bytes, options: ServerOptions) -> None:
    log = prediction_log_pb2.PredictionLog.FromString(record)
    if log.WhichOneof("log_type") != "predict_log":
        raise ValueError(f"must be a predict_log, got {log.WhichOneof('log_type')}")
    request = log.predict_log.request
    _, signature = find_signature(model.signatures, request)
    choose_outputs(signature, request)
    inputs = as_arrays(read_inputs(signature, request))
    rows = count_rows(signature, inputs)
    # In each size that a batch may have: XLA compiles each of them anew.
    sizes = [size for size in options.allowed_batch_sizes if rows is not None and size >= rows]
    try:
        for allowed_sizes in [[size] for size in sizes] or [[]]:
            run_together(
                signature, [inputs], [rows], allowed_sizes, cancellation.CancellationManager()
            )
    except tf.errors.OpError as error:
        raise from_graph(error) from error
