"""model/export.py: the SavedModel as a server sees it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2

from model.export import export_gpt2
from tests.numpy_gpt2 import NumpyGPT2
from tests.small_models import random_gpt2

END = 50256
CONTEXT = 12


@pytest.fixture(scope="module")
def model():
    return random_gpt2(
        scale=1.0, vocab_size=50257, max_length=CONTEXT, embedding_dim=6, num_heads=2, dropout=0.5
    )


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("export") / "1"
    export_gpt2(model, path, stride=CONTEXT)
    return path


@pytest.fixture(scope="module")
def saved(folder) -> saved_model_pb2.SavedModel:
    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((folder / "saved_model.pb").read_bytes())
    return proto


class Served:
    """The signatures, run as a server runs them: from the graph alone, without our code."""

    def __init__(self, folder: Path) -> None:
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            self._meta_graph = tf.compat.v1.saved_model.load(self._session, ["serve"], str(folder))

    def call(self, signature: str, **inputs: Any) -> dict[str, np.ndarray]:
        definition = self._meta_graph.signature_def[signature]
        assert set(inputs) == set(definition.inputs)
        return self._session.run(
            {name: info.name for name, info in definition.outputs.items()},
            {definition.inputs[name].name: value for name, value in inputs.items()},
        )


@pytest.fixture(scope="module")
def served(folder) -> Served:
    return Served(folder)


def described(infos: Any) -> dict[str, tuple[str, list[int]]]:
    return {
        name: (tf.as_dtype(info.dtype).name, [dim.size for dim in info.tensor_shape.dim])
        for name, info in infos.items()
    }


def nodes_of(proto: saved_model_pb2.SavedModel) -> Iterator[node_def_pb2.NodeDef]:
    for meta_graph in proto.meta_graphs:
        yield from meta_graph.graph_def.node
        for function in meta_graph.graph_def.library.function:
            yield from function.node_def


def serialized(document: list[int], num_bytes: int, **more: tf.train.Feature) -> bytes:
    def integers(values: list[int]) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    features = {"input_ids": integers(document), "num_bytes": integers([num_bytes]), **more}
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString()


def test_the_signatures_are_those_that_clients_rely_on(saved):
    (meta_graph,) = saved.meta_graphs
    assert "serve" in meta_graph.meta_info_def.tags
    signatures = dict(meta_graph.signature_def)
    signatures.pop("__saved_model_init_op")
    assert set(signatures) == {"serving_default", "evaluate"}
    assert described(signatures["serving_default"].inputs) == {
        "ids": ("int32", [-1, -1]),
        "lengths": ("int32", [-1]),
        "max_new_tokens": ("int32", [-1]),
        "temperature": ("float32", [-1]),
        "top_k": ("int32", [-1]),
        "top_p": ("float32", [-1]),
        "seed": ("int32", [-1]),
    }
    assert described(signatures["serving_default"].outputs) == {
        "ids": ("int32", [-1, -1]),
        "lengths": ("int32", [-1]),
    }
    assert described(signatures["evaluate"].inputs) == {"examples": ("string", [-1])}
    assert described(signatures["evaluate"].outputs) == {
        "sum_nll": ("float64", [-1]),
        "num_tokens": ("int64", [-1]),
        "num_bytes": ("int64", [-1]),
    }


def test_the_graph_needs_neither_python_nor_xla(saved):
    ops = {node.op for node in nodes_of(saved)}
    assert {"MatMul", "While", "ParseExampleV2"} & ops  # it was read at all
    assert {op for op in ops if "PyFunc" in op or "Xla" in op} == set()
    (meta_graph,) = saved.meta_graphs
    for function in meta_graph.graph_def.library.function:
        assert not function.attr["_XlaMustCompile"].b
    assert not any(node.attr["_XlaMustCompile"].b for node in nodes_of(saved))


def test_evaluate_gives_numpys_sums_for_each_example(model, served):
    generator = np.random.default_rng(0)
    documents = [[*generator.integers(0, END, length).tolist(), END] for length in (0, 4, 11, 17)]
    source = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"hamlet"]))
    outputs = served.call(
        "evaluate",
        examples=[serialized(d, 10 + len(d), source=source) for d in documents],
    )
    numpy_model = NumpyGPT2(model)
    expected = []
    for document in documents:
        shown, total = [END, *document[:-1]], 0.0
        for begin in range(0, len(document), CONTEXT):
            window = slice(begin, begin + CONTEXT)
            total += numpy_model.nll(shown[window], document[window]).sum()
        expected.append(total)
    np.testing.assert_allclose(outputs["sum_nll"], expected, rtol=1e-5)
    assert outputs["sum_nll"].dtype == np.float64
    assert outputs["num_tokens"].tolist() == [1, 5, 12, 18]
    assert outputs["num_bytes"].tolist() == [11, 15, 22, 28]


def test_evaluate_of_no_examples_gives_no_sums(served):
    outputs = served.call("evaluate", examples=np.array([], object))
    assert {name: value.shape for name, value in outputs.items()} == {
        "sum_nll": (0,),
        "num_tokens": (0,),
        "num_bytes": (0,),
    }


def test_an_example_that_lacks_a_feature_is_an_error(served):
    with pytest.raises(tf.errors.InvalidArgumentError, match="num_bytes"):
        served.call("evaluate", examples=[tf.train.Example().SerializeToString()])


def test_serving_default_continues_each_prompt(model, served):
    # Greedy, the one best, and what a probability of next to nothing leaves: all are the likeliest.
    outputs = served.call(
        "serving_default",
        ids=[[1, 2, 3], [4, 5, 5], [6, 6, 6], [1, 2, 3]],
        lengths=[3, 2, 1, 3],
        max_new_tokens=[5, 4, 3, 0],
        temperature=[0.0, 1.0, 1.0, 0.0],
        top_k=[0, 1, 0, 0],
        top_p=[1.0, 1.0, 1e-6, 1.0],
        seed=[1, 2, 3, 4],
    )
    numpy_model = NumpyGPT2(model)
    for row, (prompt, count) in enumerate([([1, 2, 3], 5), ([4, 5], 4), ([6], 3), ([1, 2, 3], 0)]):
        ids = list(prompt)
        while len(ids) < len(prompt) + count:
            ids.append(int(numpy_model.logits(ids)[-1].argmax()))
        assert END not in ids
        assert outputs["lengths"][row] == count
        assert outputs["ids"][row].tolist() == ids[len(prompt) :] + [0] * (5 - count)


def test_serving_default_samples_by_the_seed(served):
    def texts(seeds: list[int]) -> list[list[int]]:
        rows = len(seeds)
        outputs = served.call(
            "serving_default",
            ids=[[1, 2, 3]] * rows,
            lengths=[3] * rows,
            max_new_tokens=[9] * rows,
            temperature=[1.5] * rows,
            top_k=[0] * rows,
            top_p=[1.0] * rows,
            seed=seeds,
        )
        return outputs["ids"].tolist()

    first, second, third = texts([1, 2, 1])
    assert first == third != second
    assert texts([2]) == [second]


@pytest.mark.parametrize(("tokens", "new_tokens"), [(13, 2), (13, 0), (3, 10), (3, 2**31 - 1)])
def test_what_exceeds_the_context_is_an_error_with_the_numbers(served, tokens, new_tokens):
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=f"a prompt of {tokens} tokens and {new_tokens} new tokens exceed the context of 12",
    ):
        served.call(
            "serving_default",
            ids=[[1] * tokens],
            lengths=[tokens],
            max_new_tokens=[new_tokens],
            temperature=[0.0],
            top_k=[0],
            top_p=[1.0],
            seed=[0],
        )


def test_a_stride_that_does_not_fit_is_an_error_before_anything_is_written(model, tmp_path):
    with pytest.raises(ValueError, match=r"stride must be in \[1, max_length=12\], got 13"):
        export_gpt2(model, tmp_path / "1", stride=13)
    assert not (tmp_path / "1").exists()
