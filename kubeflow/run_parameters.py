"""What can be changed from one run to the next without compiling anew.

TFX has RuntimeParameters of its own, but a compiled file loses their defaults, and they can stand
for a whole property only, while most of these are a number inside a property that is JSON. So they
are put into the compiled file afterwards, all in one way: each becomes an input of one task, and in
the pod the entry point takes it from there to where the executor looks for it.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from pipeline.config import EvaluationConfig, PipelineConfig
from pipeline.kubeflow_config import check_place

EXAMPLE_GEN = "CorpusExampleGen"
NEWEST_SPAN = -1

_Value = str | int | float | bool


@dataclasses.dataclass(frozen=True)
class RunParameter:
    """Describes a parameter of a run.

    Args:
        name: As it is given when a run starts.
        kind: The type's name in Kubeflow's schema.
        task: The component that gets it.
        default: Gives its value in a run that is given none, from the configuration.
        replaces: The component's own property that it is the value of, if there is one.
        is_in_force: Says whether a pipeline of this configuration has it.
    """

    name: str
    kind: str
    task: str
    default: Callable[[PipelineConfig], _Value]
    replaces: str | None = None
    is_in_force: Callable[[PipelineConfig], bool] = lambda config: True


RUN_PARAMETERS = (
    RunParameter(
        "data_root", "STRING", EXAMPLE_GEN, lambda config: config.data_folder, "input_base"
    ),
    RunParameter("span", "NUMBER_INTEGER", EXAMPLE_GEN, lambda config: NEWEST_SPAN),
    RunParameter(
        "skip_without_new_data",
        "BOOLEAN",
        EXAMPLE_GEN,
        lambda config: config.kubeflow.skip_without_new_data,
    ),
    RunParameter(
        "training_steps", "NUMBER_INTEGER", "Trainer", lambda config: config.training.steps
    ),
    RunParameter(
        "max_perplexity",
        "NUMBER_DOUBLE",
        "Evaluator",
        lambda config: config.evaluation.max_perplexity,
    ),
    RunParameter(
        "min_improvement",
        "NUMBER_DOUBLE",
        "Evaluator",
        lambda config: config.evaluation.min_improvement,
    ),
    RunParameter(
        "max_forgetting",
        "NUMBER_DOUBLE",
        "Evaluator",
        lambda config: config.evaluation.max_forgetting,
        # Without spans no part of the data is older than another: `pipeline.graph`.
        is_in_force=lambda config: config.data.spans,
    ),
)


# The fields of EvaluationConfig among them.
_THRESHOLDS = ("max_perplexity", "min_improvement", "max_forgetting")


def take_others(properties: dict[str, Any]) -> dict[str, float]:
    """Takes the later components' parameters out of the example generator's, and returns them.

    It has them only to tell whether there was a run with the same ones.
    """
    names = [parameter.name for parameter in RUN_PARAMETERS if parameter.task != EXAMPLE_GEN]
    # As JSON a number may come with a fraction or without.
    return {name: float(properties.pop(name)) for name in names if name in properties}


def apply_run_parameters(properties: dict[str, Any]) -> None:
    """Moves a run's parameters to where a component's executor and driver look for them.

    Args:
        properties: The task's parameters, which this changes. Those that the executor is to get
            under their own names stay, and `skip_without_new_data`, which is the entry point's.

    Raises:
        ValueError: A value is out of range.
    """
    if "input_base" in properties:
        check_place("data_root", properties["input_base"])
    span = properties.pop("span", None)
    if span is not None and span != NEWEST_SPAN:
        _choose_span(properties, _whole("span", span, 0))
    steps = properties.pop("training_steps", None)
    if steps is not None:
        _set_steps(properties, _whole("training_steps", steps, 1))
    thresholds = {name: properties.pop(name) for name in _THRESHOLDS if name in properties}
    if thresholds:
        _set_thresholds(properties, thresholds)


def _whole(name: str, value: float, least: int) -> int:
    if value != int(value) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value}")
    return int(value)


def _choose_span(properties: dict[str, Any], span: int) -> None:
    if "{SPAN}" not in properties["input_config"]:
        raise ValueError(f"span must be {NEWEST_SPAN} where data.spans is false, got {span}")
    # tfx.proto.RangeConfig, which the driver reads.
    chosen = {"start_span_number": span, "end_span_number": span}
    properties["range_config"] = json.dumps({"static_range": chosen})


def _set_steps(properties: dict[str, Any], steps: int) -> None:
    settings = json.loads(properties["custom_config"])
    settings["training"]["steps"] = steps
    properties["custom_config"] = json.dumps(settings)
    arguments = json.loads(properties["train_args"])
    properties["train_args"] = json.dumps(arguments | {"num_steps": steps})


def _set_thresholds(properties: dict[str, Any], given: dict[str, float]) -> None:
    """Puts them where `components.evaluation.eval_config` has them: each with its slices."""
    from components.evaluation import PART  # not at the top: all of TFMA comes with it

    criteria = EvaluationConfig(**given)
    config = json.loads(properties["eval_config"])
    by_slices = {
        json.dumps(slices["slicing_specs"]): slices["threshold"]
        for specs in config["metrics_specs"]
        for metric in specs["metrics"]
        for slices in metric.get("per_slice_thresholds", [])
    }
    whole = by_slices[json.dumps([{}])]
    whole["value_threshold"]["upper_bound"] = criteria.max_perplexity
    whole["change_threshold"]["relative"] = -criteria.min_improvement
    if "max_forgetting" in given:
        parts = by_slices[json.dumps([{"feature_keys": [PART]}])]
        parts["change_threshold"]["relative"] = criteria.max_forgetting
    properties["eval_config"] = json.dumps(config)
