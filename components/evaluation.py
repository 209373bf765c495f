"""What the Evaluator measures and what it demands."""

from collections.abc import Sequence

import tensorflow_model_analysis as tfma

# tfma.EvalConfig and its kin exist only after TFX was imported.
from tensorflow_model_analysis.proto import config_pb2

from components import metrics

CANDIDATE, BASELINE = "candidate", "baseline"

# The features that metrics are cut by.
SOURCE, PART = "source", "part"
_WHOLE = config_pb2.SlicingSpec()


def eval_config(
    max_perplexity: float, min_improvement: float, max_forgetting: float | None = None
) -> config_pb2.EvalConfig:
    """Returns TFMA's configuration: our metrics, over the whole split and for each source.

    A candidate is blessed when all of these hold, the first two over the whole split.

    Args:
        max_perplexity: Its perplexity is at most this.
        min_improvement: Its perplexity is lower than the baseline's by at least this share of the
            baseline's; 0 demands that it is not higher.
        max_forgetting: On neither part, the new data and the old, its perplexity is higher than the
            baseline's by more than this share of the baseline's. Without it parts are not told
            apart.
    """
    signature = {"signature_name": "evaluate", "model_type": "tf_generic"}
    slices, thresholds = [_WHOLE, _slices_by(SOURCE)], [_on_whole(max_perplexity, min_improvement)]
    if max_forgetting is not None:
        slices.append(_slices_by(PART))
        thresholds.append(_on_each_part(max_forgetting))
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(name=CANDIDATE, **signature),
            config_pb2.ModelSpec(name=BASELINE, is_baseline=True, **signature),
        ],
        slicing_specs=slices,
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    _metric(metrics.Perplexity, thresholds),
                    _metric(metrics.BitsPerByte),
                    config_pb2.MetricConfig(class_name="ExampleCount"),
                ]
            )
        ],
    )


def _on_whole(max_perplexity: float, min_improvement: float) -> config_pb2.PerSliceMetricThreshold:
    # A threshold as such would hold for every source too, and a single one that got a little worse
    # would block a model that is better on the whole.
    return config_pb2.PerSliceMetricThreshold(
        slicing_specs=[_WHOLE],
        threshold=config_pb2.MetricThreshold(
            value_threshold=config_pb2.GenericValueThreshold(upper_bound={"value": max_perplexity}),
            change_threshold=_largest_change(-min_improvement),
        ),
    )


def _on_each_part(max_forgetting: float) -> config_pb2.PerSliceMetricThreshold:
    # Not on `old` by its value: where there is nothing old, as in the first span's run, TFMA takes
    # the slice for missing and validates no model.
    return config_pb2.PerSliceMetricThreshold(
        slicing_specs=[_slices_by(PART)],
        threshold=config_pb2.MetricThreshold(change_threshold=_largest_change(max_forgetting)),
    )


def _slices_by(feature: str) -> config_pb2.SlicingSpec:
    return config_pb2.SlicingSpec(feature_keys=[feature])


def _largest_change(share: float) -> config_pb2.GenericChangeThreshold:
    return config_pb2.GenericChangeThreshold(
        direction=config_pb2.MetricDirection.LOWER_IS_BETTER, relative={"value": share}
    )


def _metric(
    metric: type[tfma.metrics.Metric],
    thresholds: Sequence[config_pb2.PerSliceMetricThreshold] = (),
) -> config_pb2.MetricConfig:
    return config_pb2.MetricConfig(
        class_name=metric.__name__, module=metric.__module__, per_slice_thresholds=thresholds
    )
