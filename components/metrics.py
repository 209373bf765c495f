"""Perplexity and bits per byte as TFMA metrics: sums over documents, one division at the end."""

import math
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types

Sums = tuple[float, int]  # nats, and tokens or bytes


class Perplexity(tfma.metrics.Metric):
    """exp(total nll / total tokens): among how many tokens the model hesitates, on average.

    The sums run over all documents of a slice, so that it is the perplexity of their tokens and
    not a mean of the documents' perplexities. Lower is better.
    """

    def __init__(self, name: str = "perplexity") -> None:
        super().__init__(_perplexity, name=name)


class BitsPerByte(tfma.metrics.Metric):
    """total nll / (ln 2 * total bytes): comparable between tokenisers. Lower is better."""

    def __init__(self, name: str = "bits_per_byte") -> None:
        super().__init__(_bits_per_byte, name=name)


class RatioOfSums(beam.CombineFn):
    """Sums `sum_nll` and a count over documents, for one model.

    Args:
        key: The metric's key; its model name tells which predictions to read when there are a
            candidate's and a baseline's.
        count: `num_tokens` or `num_bytes`.
    """

    def __init__(self, key: metric_types.MetricKey, count: str) -> None:
        self._key = key
        self._count = count

    def create_accumulator(self) -> Sums:
        return 0.0, 0

    def add_input(self, sums: Sums, element: metric_types.StandardMetricInputs) -> Sums:
        predictions = element.predictions
        predictions = predictions.get(self._key.model_name, predictions)
        return (
            sums[0] + float(np.sum(predictions["sum_nll"])),
            sums[1] + int(np.sum(predictions[self._count])),
        )

    def merge_accumulators(self, accumulators: Iterable[Sums]) -> Sums:
        nll, count = 0.0, 0
        for accumulator in accumulators:
            nll, count = nll + accumulator[0], count + accumulator[1]
        return nll, count

    def extract_output(self, sums: Sums) -> dict[metric_types.MetricKey, float]:
        return {self._key: self.value(*sums)}

    def value(self, nll: float, count: int) -> float:
        """Returns the metric of the sums; NaN when there are none."""
        raise NotImplementedError


class PerplexityCombiner(RatioOfSums):
    """exp of nats a token; infinite where that is beyond all floats, of a model that diverged."""

    def value(self, nll: float, count: int) -> float:
        with np.errstate(over="ignore"):
            return float(np.exp(nll / count)) if count else math.nan


class BitsPerByteCombiner(RatioOfSums):
    """Bits a byte."""

    def value(self, nll: float, count: int) -> float:
        return nll / (math.log(2) * count) if count else math.nan


def _perplexity(name: str, model_names: list[str] | None = None) -> Any:
    return _computations(name, model_names, PerplexityCombiner, "num_tokens")


def _bits_per_byte(name: str, model_names: list[str] | None = None) -> Any:
    return _computations(name, model_names, BitsPerByteCombiner, "num_bytes")


def _computations(
    name: str, model_names: list[str] | None, combiner: type[RatioOfSums], count: str
) -> list[metric_types.MetricComputation]:
    keys = [metric_types.MetricKey(name, model_name) for model_name in model_names or [""]]
    return [metric_types.MetricComputation([key], None, combiner(key, count)) for key in keys]
