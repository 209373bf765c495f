"""What can be changed from one run to the next without compiling anew.

TFX has RuntimeParameters of its own, but a compiled file loses their defaults, and they can stand
for a whole property only, while most of these are a number inside a property that is JSON. So they
are put into the compiled file afterwards, all in one way: each becomes an input of one task, and in
the pod the entry point takes it from there to where the executor looks for it.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from kubeflow.mirror import PACKAGE
from model.training_config import read_training_config
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


def check_run_parameters(values: Mapping[str, Any]) -> None:
    """Does nothing if the values are in range; names that are not ours are not looked at.

    Raises:
        ValueError: One is out of range.
    """
    if "data_root" in values:
        _check_data_root(values["data_root"])
    if values.get("span", NEWEST_SPAN) != NEWEST_SPAN:
        _check_whole("span", values["span"], 0)
    if "training_steps" in values:
        _check_whole("training_steps", values["training_steps"], 1)
    _criteria(values)


def check_steps(spec: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Does nothing if a compiled pipeline's Trainer can train for a run's steps, if it has any.

    Raises:
        ValueError: Another of its settings forbids it, such as a longer warm-up.
    """
    if "training_steps" not in values:
        return
    try:
        inputs = spec["root"]["dag"]["tasks"]["Trainer"]["inputs"]["parameters"]
        fields = json.loads(inputs["custom_config"]["runtimeValue"]["constant"])["training"]
        read_training_config(fields | {"steps": values["training_steps"]})
    except (KeyError, TypeError):
        return  # no pipeline of ours, or of a version of ours that has other settings


def apply_run_parameters(properties: dict[str, Any]) -> None:
    """Moves a run's parameters to where a component's executor and driver look for them.

    Args:
        properties: The task's parameters, which this changes. Those that the executor is to get
            under their own names stay, and `skip_without_new_data`, which is the entry point's.

    Raises:
        ValueError: A value is out of range.
    """
    places = {parameter.name: parameter.replaces or parameter.name for parameter in RUN_PARAMETERS}
    given = {name: properties[place] for name, place in places.items() if place in properties}
    check_run_parameters(given)
    span = properties.pop("span", NEWEST_SPAN)
    if span != NEWEST_SPAN:
        _choose_span(properties, int(span))
    if "training_steps" in properties:
        _set_steps(properties, int(properties.pop("training_steps")))
    thresholds = {name: properties.pop(name) for name in _THRESHOLDS if name in properties}
    if thresholds:
        _set_thresholds(properties, thresholds)


def _check_data_root(place: str) -> None:
    check_place("data_root", place)
    if "://" not in place and not place.startswith(("/", PACKAGE)):
        raise ValueError(f"data_root must be a bucket's folder or begin with '/', got {place!r}")


def _check_whole(name: str, value: float, least: int) -> None:
    if value != int(value) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value}")


def _criteria(values: Mapping[str, Any]) -> EvaluationConfig:
    given = {name: values[name] for name in _THRESHOLDS if name in values}
    return EvaluationConfig(**{"max_perplexity": 1.0} | given)  # 1: the field has no default


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

    criteria = _criteria(given)
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
