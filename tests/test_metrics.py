"""components/metrics.py: Perplexity and BitsPerByte against sums in float64 NumPy."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types

from components.evaluation import BASELINE, CANDIDATE, eval_config
from components.metrics import BitsPerByteCombiner, PerplexityCombiner, RatioOfSums
from tests.made_models import Document, evaluate

KEY = metric_types.MetricKey("metric")
SOURCES = ("hamlet", "sonnets", "tempest")
VOCABULARY = 200


def made_documents() -> list[Document]:
    """Documents of very different lengths, whose sources differ in length and in words."""
    generator = np.random.default_rng(7)
    documents = []
    for number in range(90):
        source = number % 3
        ids = generator.integers(40 * source, 40 * source + 120, int(1.06**number) + source)
        documents.append(Document(ids.tolist(), int(generator.integers(1, 500)), SOURCES[source]))
    return documents


@pytest.fixture(scope="module")
def tables() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(8)
    return {name: generator.uniform(0, 12, VOCABULARY) for name in (CANDIDATE, BASELINE)}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, tables) -> str:
    return evaluate(
        tmp_path_factory.mktemp("metrics"),
        eval_config(max_perplexity=1e6, min_improvement=0.0),
        made_documents(),
        candidate=tables[CANDIDATE],
        baseline=tables[BASELINE],
    )


@pytest.mark.parametrize("model_name", [CANDIDATE, BASELINE])
@pytest.mark.parametrize("source", [None, *SOURCES])
def test_tfma_gives_what_numpy_gives_for_both_models_on_the_whole_and_for_each_source(
    evaluated, tables, model_name, source
):
    result = tfma.load_eval_result(evaluated, model_name=model_name)
    slices = dict(result.slicing_metrics)
    assert set(slices) == {(), *((("source", name),) for name in SOURCES)}
    metrics = slices[() if source is None else (("source", source),)][""][""]

    documents = [d for d in made_documents() if source in (None, d.source)]
    tokens = np.concatenate([document.ids for document in documents])
    total_nll = tables[model_name][tokens].sum()
    total_bytes = sum(document.num_bytes for document in documents)
    assert metrics["perplexity"]["doubleValue"] == pytest.approx(
        np.exp(total_nll / len(tokens)), rel=1e-9
    )
    assert metrics["bits_per_byte"]["doubleValue"] == pytest.approx(
        total_nll / np.log(2) / total_bytes, rel=1e-9
    )
    assert metrics["example_count"]["doubleValue"] == len(documents)


def element(sum_nll: float, count: int) -> metric_types.StandardMetricInputs:
    """One document's predictions, as TFMA passes them on for a single model."""
    return inputs(
        {
            "sum_nll": np.array([sum_nll]),
            "num_tokens": np.array([count]),
            "num_bytes": np.array([count]),
        }
    )


def inputs(predictions: dict[str, Any]) -> metric_types.StandardMetricInputs:
    return metric_types.StandardMetricInputs({"predictions": predictions})


def combine(combiner: RatioOfSums, shares: list[list[metric_types.StandardMetricInputs]]) -> float:
    """Each share into an accumulator of its own, then all into one, as Beam does."""
    accumulators = []
    for share in shares:
        accumulator = combiner.create_accumulator()
        for document in share:
            accumulator = combiner.add_input(accumulator, document)
        accumulators.append(accumulator)
    return combiner.extract_output(combiner.merge_accumulators(accumulators))[KEY]


def perplexity() -> PerplexityCombiner:
    return PerplexityCombiner(KEY, "num_tokens")


def bits_per_byte() -> BitsPerByteCombiner:
    return BitsPerByteCombiner(KEY, "num_bytes")


def test_perplexity_weighs_documents_by_their_tokens():
    # One token that the model gives 1/100, nine that it is sure of. The mean of the documents'
    # perplexities would be 50.5.
    shares = [[element(math.log(100), 1), element(0.0, 9)]]
    assert combine(perplexity(), shares) == pytest.approx(100**0.1, rel=1e-12)


def test_bits_per_byte_weighs_documents_by_their_bytes():
    # 8 bits for one byte and none for the other three.
    shares = [[element(8 * math.log(2), 1), element(0.0, 3)]]
    assert combine(bits_per_byte(), shares) == pytest.approx(2.0, rel=1e-12)


@pytest.mark.parametrize("make_combiner", [perplexity, bits_per_byte])
def test_order_and_distribution_of_the_documents_do_not_matter(make_combiner):
    documents = [element(2.5, 3), element(0.125, 1), element(1000.0, 200), element(7.0, 4)]
    expected = {
        perplexity: math.exp((2.5 + 0.125 + 1000.0 + 7.0) / 208),
        bits_per_byte: (2.5 + 0.125 + 1000.0 + 7.0) / (208 * math.log(2)),
    }[make_combiner]
    for order in itertools.permutations(documents):
        for cut in range(len(order) + 1):
            shares = [list(order[:cut]), [], list(order[cut:])]
            assert combine(make_combiner(), shares) == pytest.approx(expected, rel=1e-12)


def test_each_models_own_predictions_are_read_where_there_are_several():
    both = inputs(
        {
            name: {"sum_nll": np.array([nll]), "num_tokens": np.array([2])}
            for name, nll in ((CANDIDATE, 2 * math.log(3)), (BASELINE, 2 * math.log(5)))
        }
    )
    for name, expected in ((CANDIDATE, 3.0), (BASELINE, 5.0)):
        key = metric_types.MetricKey("perplexity", name)
        combiner = PerplexityCombiner(key, "num_tokens")
        sums = combiner.add_input(combiner.create_accumulator(), both)
        assert combiner.extract_output(sums) == {key: pytest.approx(expected, rel=1e-12)}


@pytest.mark.parametrize("make_combiner", [perplexity, bits_per_byte])
def test_of_no_documents_the_metrics_are_not_a_number(make_combiner):
    assert math.isnan(combine(make_combiner(), [[]]))


def test_a_perplexity_beyond_all_floats_is_infinite_and_no_error():
    # Of a model that diverged: it is to fail its bound, not to break the run.
    assert combine(perplexity(), [[element(800.0, 1)]]) == math.inf
    assert combine(perplexity(), [[element(math.inf, 1)]]) == math.inf
