"""kubeflow/run_parameters.py: a run's parameters reach the settings that executors read."""

import json
from typing import Any

import pytest
from google.protobuf import json_format
from tfx.proto import range_config_pb2, trainer_pb2
from tfx.utils import proto_utils

from components.evaluation import eval_config
from kubeflow.run_parameters import apply_run_parameters


def generator(pattern: str, span: float) -> dict[str, Any]:
    return {"input_config": json.dumps({"splits": [{"pattern": pattern}]}), "span": span}


def evaluator(
    max_perplexity: float, min_improvement: float, max_forgetting: float | None = None
) -> dict[str, Any]:
    compiled = eval_config(100, 0.5, None if max_forgetting is None else 0.01)
    properties = {
        "eval_config": proto_utils.proto_to_json(compiled),
        "max_perplexity": max_perplexity,
        "min_improvement": min_improvement,
    }
    return properties if max_forgetting is None else properties | {"max_forgetting": max_forgetting}


def test_the_steps_reach_the_trainer_in_both_places():
    properties: dict[str, Any] = {
        "custom_config": '{"training": {"steps": 5, "seed": 3}, "stride": 8}',
        "train_args": '{"num_steps": 5, "splits": ["train"]}',
        "training_steps": 70.0,  # as JSON in a Struct has it
    }
    apply_run_parameters(properties)
    assert set(properties) == {"custom_config", "train_args"}
    assert json.loads(properties["custom_config"]) == {
        "training": {"steps": 70, "seed": 3},
        "stride": 8,
    }
    arguments = json_format.Parse(properties["train_args"], trainer_pb2.TrainArgs())
    assert (arguments.num_steps, list(arguments.splits)) == (70, ["train"])


@pytest.mark.parametrize("thresholds", [(200.5, 0.25), (200.5, 0.25, 0.0), (200.5, 0.0, 0.75)])
def test_the_thresholds_are_those_that_the_configuration_would_have_compiled(thresholds):
    properties = evaluator(*thresholds)
    apply_run_parameters(properties)
    assert set(properties) == {"eval_config"}
    expected = proto_utils.proto_to_json(eval_config(*thresholds))
    assert json.loads(properties["eval_config"]) == json.loads(expected)


def test_a_span_is_the_only_one_that_the_driver_finds():
    properties = generator("span-{SPAN}/*", 7.0)
    apply_run_parameters(properties)
    chosen = json_format.Parse(properties["range_config"], range_config_pb2.RangeConfig())
    assert (chosen.static_range.start_span_number, chosen.static_range.end_span_number) == (7, 7)
    assert "span" not in properties


@pytest.mark.parametrize("pattern", ["span-{SPAN}/*", "*"])
def test_by_default_the_driver_takes_the_newest_span(pattern):
    properties = generator(pattern, -1.0)
    apply_run_parameters(properties)
    assert set(properties) == {"input_config"}


@pytest.mark.parametrize(
    ("properties", "problem"),
    [
        ({"training_steps": 0.0}, "training_steps must be a whole number >= 1, got 0.0"),
        ({"training_steps": 1.5}, "training_steps must be a whole number >= 1, got 1.5"),
        (generator("span-{SPAN}/*", -2.0), "span must be a whole number >= 0, got -2.0"),
        (generator("*", 3.0), "span must be -1 where data.spans is false, got 3"),
        ({"input_base": "hdfs://nn/x"}, "data_root must be gs://BUCKET/.* got 'hdfs://nn/x'"),
        ({"input_base": "texts"}, "data_root must be a bucket's folder or begin with '/'"),
        (evaluator(0.5, 0.0), "max_perplexity must be >= 1, got 0.5"),
        (evaluator(10.0, 1.0), r"min_improvement must be in \[0, 1\), got 1.0"),
        (evaluator(10.0, 0.0, -0.1), "max_forgetting must be >= 0 and finite, got -0.1"),
    ],
)
def test_a_value_out_of_range_is_an_error_by_its_name(properties, problem):
    with pytest.raises(ValueError, match=problem):
        apply_run_parameters(properties)


def test_a_task_without_such_parameters_keeps_all_it_has():
    properties = {"serving_folder": "s3://b/x", "stride": 3.0}
    apply_run_parameters(properties)
    assert properties == {"serving_folder": "s3://b/x", "stride": 3.0}
