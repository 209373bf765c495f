"""What the Evaluator measures and what it demands."""

import tensorflow_model_analysis as tfma

# tfma.EvalConfig and its kin exist only after TFX was imported.
from tensorflow_model_analysis.proto import config_pb2

from components import metrics

CANDIDATE, BASELINE = "candidate", "baseline"


def eval_config(max_perplexity: float, min_improvement: float) -> config_pb2.EvalConfig:
    """Returns TFMA's configuration: our metrics, over the whole split and for each source.

    A candidate is blessed when, over the whole split, both hold.

    Args:
        max_perplexity: Its perplexity is at most this.
        min_improvement: Its perplexity is lower than the baseline's by at least this share of the
            baseline's; 0 demands that it is not higher.
    """
    signature = {"signature_name": "evaluate", "model_type": "tf_generic"}
    threshold = config_pb2.MetricThreshold(
        value_threshold=config_pb2.GenericValueThreshold(upper_bound={"value": max_perplexity}),
        change_threshold=config_pb2.GenericChangeThreshold(
            direction=config_pb2.MetricDirection.LOWER_IS_BETTER,
            relative={"value": -min_improvement},
        ),
    )
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(name=CANDIDATE, **signature),
            config_pb2.ModelSpec(name=BASELINE, is_baseline=True, **signature),
        ],
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=["source"])],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    _metric(metrics.Perplexity, threshold),
                    _metric(metrics.BitsPerByte),
                    config_pb2.MetricConfig(class_name="ExampleCount"),
                ]
            )
        ],
    )


def _metric(
    metric: type[tfma.metrics.Metric], threshold: config_pb2.MetricThreshold | None = None
) -> config_pb2.MetricConfig:
    return config_pb2.MetricConfig(
        class_name=metric.__name__,
        module=metric.__module__,
        # A threshold as such would hold for every source too, and a single one that got a little
        # worse would block a model that is better on the whole.
        per_slice_thresholds=[
            config_pb2.PerSliceMetricThreshold(
                slicing_specs=[config_pb2.SlicingSpec()], threshold=threshold
            )
        ]
        if threshold
        else [],
    )
