"""Requests that a model server replays before it makes a model available."""

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from model.served import OPTIONS

# Where TensorFlow Serving looks for them.
_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")


def write_warm_up(folder: str | os.PathLike[str], prompts: Sequence[str], new_tokens: int) -> None:
    """Adds requests for each signature that clients use to the SavedModel in `folder`.

    Args:
        folder: The SavedModel's.
        prompts: What is continued: each alone, then all of them in one call.
        new_tokens: How many tokens each request asks for.
    """
    requests = [_completion([prompt], new_tokens) for prompt in prompts]
    requests += [
        _completion(prompts, new_tokens),
        _request("score", texts=prompts),
        _request("encode", texts=prompts),
        _request("generate_ids", ids=[[0]], lengths=[1], max_new_tokens=[new_tokens]),
        _request("decode", ids=[[0]], lengths=[1]),
    ]
    path = os.path.join(folder, _FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        for request in requests:
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            writer.write(log.SerializeToString())


def _completion(prompts: Sequence[str], new_tokens: int) -> predict_pb2.PredictRequest:
    """Returns a request with every option for each prompt, as a server that batches wants it."""
    options = OPTIONS | {"max_new_tokens": np.array([new_tokens], np.int32)}
    rows = {name: np.repeat(value, len(prompts), axis=0) for name, value in options.items()}
    return _request("serving_default", prompts=prompts, **rows)


def _request(signature: str, **inputs: object) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(tf.convert_to_tensor(value)))
    return request
