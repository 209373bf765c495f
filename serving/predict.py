"""One Predict call: what the request's tensors must be, the signature's run, and its errors.

Codes and messages are those of TensorFlow Serving (`servables/tensorflow/predict_util.cc`), so
that a client cannot tell the two apart; where ours say more, a comment tells why.
"""

import re
from collections.abc import Iterable
from typing import Any

import grpc
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2

from serving.versions import LoadedVersion

# A few bytes can claim "all zeros, of shape [10**12]". The bound is what a message of the longest
# kind can spell out in int32.
MAX_TENSOR_ELEMENTS = 16 * 1024 * 1024

# TensorFlow's error codes are gRPC's, by number.
_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}


class RequestError(Exception):
    """A request that gets a gRPC status instead of an answer.

    Args:
        code: The status code that the client gets.
        message: What the client is told.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def predict(
    version: LoadedVersion, request: predict_pb2.PredictRequest
) -> predict_pb2.PredictResponse:
    """Returns the outputs of the signature that the request names, with the version that ran it.

    Raises:
        RequestError: The request does not fit the signature, or the model refused or failed.
    """
    signature_name = (
        request.model_spec.signature_name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
    )
    if signature_name not in version.signatures:
        raise RequestError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f'Serving signature key "{signature_name}" not found.',
        )
    signature = version.signatures[signature_name]
    inputs = _read_inputs(signature, request)
    output_names = _choose_outputs(signature, request)
    outputs = _run(signature, inputs)

    response = predict_pb2.PredictResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.version.value = version.number
    response.model_spec.signature_name = signature_name
    for name in output_names:
        response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name].numpy()))
    return response


def _read_inputs(signature: Any, request: predict_pb2.PredictRequest) -> dict[str, tf.Tensor]:
    """Returns the request's tensors by name, each of the signature's dtype and shape."""
    specs = signature.structured_input_signature[1]
    if request.inputs.keys() != specs.keys():
        extra = request.inputs.keys() - specs.keys()
        missing = specs.keys() - request.inputs.keys()
        raise _invalid(
            f"input size does not match signature: {len(request.inputs)}!={len(specs)} "
            f"len({_braced(request.inputs)}) != len({_braced(specs)}). "
            f"Sent extra: {_braced(extra)}. Missing but required: {_braced(missing)}."
        )
    return {name: _read_tensor(name, request.inputs[name], spec) for name, spec in specs.items()}


def _read_tensor(name: str, proto: tensor_pb2.TensorProto, spec: tf.TensorSpec) -> tf.Tensor:
    # TensorFlow Serving finds these by running the graph, and then names the input by its place
    # ("Expects arg[0] to be int32"); we name it as the client does.
    if proto.dtype != spec.dtype.as_datatype_enum:
        raise _invalid(f"input {name}: expected {spec.dtype.name}, got {_dtype_name(proto.dtype)}")
    if proto.tensor_shape.unknown_rank or any(axis.size < 0 for axis in proto.tensor_shape.dim):
        raise _invalid(f"input {name}: its shape must be known")
    shape = tf.TensorShape([axis.size for axis in proto.tensor_shape.dim])
    if not spec.shape.is_compatible_with(shape):
        raise _invalid(f"input {name}: expected shape {spec.shape}, got {shape}")
    if shape.num_elements() > MAX_TENSOR_ELEMENTS:
        raise _invalid(
            f"input {name}: expected at most {MAX_TENSOR_ELEMENTS} elements, got shape {shape}"
        )
    try:
        # The C++ reader that TensorFlow Serving uses too: `tf.make_ndarray` knows fewer encodings.
        return tf.io.parse_tensor(proto.SerializeToString(), spec.dtype)
    except tf.errors.InvalidArgumentError as error:
        raise _invalid(f"tensor parsing error: {name}") from error


def _choose_outputs(signature: Any, request: predict_pb2.PredictRequest) -> list[str]:
    """Returns the names in the request's output filter; all of the signature's when it has none."""
    names = signature.structured_outputs.keys()
    chosen: list[str] = []
    for name in request.output_filter:
        if name not in names:
            raise _invalid(
                f"output tensor alias not found in signature: {name} "
                f"Outputs expected to be in the set {_braced(names)}."
            )
        if name in chosen:
            raise _invalid(f"duplicate output tensor alias: {name}")
        chosen.append(name)
    return chosen or list(names)


def _run(signature: Any, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    try:
        return signature(**inputs)
    except tf.errors.OpError as error:
        raise RequestError(_GRPC_CODES[error.error_code], essential_line(error.message)) from error


def essential_line(message: str) -> str:
    r"""Returns what a graph's error says, without the nodes and functions that it went through.

    TensorFlow wraps the sentence, which is all that a client can use, like this:

        Graph execution error:

        Detected at node Assert defined at (most recent call last):
        <stack traces unavailable>
        assertion failed: [the sentence]
        \t [[{{node Assert}}]] [Op:__inference_signature_wrapper_77]

    or, when several operations fail at once, as a line `  (0) INVALID_ARGUMENT: the sentence`
    of a list.
    """
    roots = re.findall(r"^ +\(\d+\) [A-Z_]+: +(.+)$", message, re.MULTILINE)
    lines = roots[:1] or [
        line
        for line in message.splitlines()
        if line
        and not line[0].isspace()
        and not line.startswith(("Graph execution error:", "Detected at node ", "<stack traces"))
    ]
    sentence = re.sub(r" \[Op:\w+\].*$", "", "\n".join(lines)) or message
    # An assertion puts each of its values in brackets: with one alone, it is the sentence.
    assertion = re.fullmatch(r"assertion failed: \[(.*)\]", sentence, re.DOTALL)
    return assertion[1] if assertion and "] [" not in assertion[1] else sentence


def _invalid(message: str) -> RequestError:
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)


def _braced(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _dtype_name(number: int) -> str:
    """Returns `float32` for DT_FLOAT, and so on; the number for one that TensorFlow lacks."""
    if number in types_pb2.DataType.values() and number != types_pb2.DT_INVALID:
        return tf.as_dtype(number).name
    return f"dtype {number}"
