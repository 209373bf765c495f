"""What the Evaluator measures and what it demands."""

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from components import metrics

CANDIDATE, BASELINE = "candidate", "baseline"


def eval_config(max_perplexity: float, min_improvement: float) -> tfma.EvalConfig:
    """Returns TFMA's configuration: our metrics, over the whole split and for each source.

    A candidate is blessed when, over the whole split, both hold.

    Args:
        max_perplexity: Its perplexity is at most this.
        min_improvement: Its perplexity is lower than the baseline's by at least this share of the
            baseline's; 0 demands that it is not higher.
    """
    signature = {"signature_name": "evaluate", "model_type": "tf_generic"}
    threshold = tfma.MetricThreshold(
        value_threshold=tfma.GenericValueThreshold(upper_bound={"value": max_perplexity}),
        change_threshold=tfma.GenericChangeThreshold(
            direction=tfma.MetricDirection.LOWER_IS_BETTER,
            relative={"value": -min_improvement},
        ),
    )
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(name=CANDIDATE, **signature),
            tfma.ModelSpec(name=BASELINE, is_baseline=True, **signature),
        ],
        slicing_specs=[tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=["source"])],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    _metric(metrics.Perplexity, threshold),
                    _metric(metrics.BitsPerByte),
                    tfma.MetricConfig(class_name="ExampleCount"),
                ]
            )
        ],
    )


def _metric(
    metric: type[tfma.metrics.Metric], threshold: tfma.MetricThreshold | None = None
) -> tfma.MetricConfig:
    return tfma.MetricConfig(
        class_name=metric.__name__,
        module=metric.__module__,
        # A threshold as such would hold for every source too, and a single one that got a little
        # worse would block a model that is better on the whole.
        per_slice_thresholds=[
            config_pb2.PerSliceMetricThreshold(
                slicing_specs=[tfma.SlicingSpec()], threshold=threshold
            )
        ]
        if threshold
        else [],
    )
