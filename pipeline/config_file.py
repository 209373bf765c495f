"""Reads a run's configuration: one YAML file, checked as a whole before anything starts."""

import json
import re
import shlex
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pydantic
import yaml

from model.config import GPT2Config
from model.training_config import StrategyConfig, TrainingConfig
from pipeline.beam_config import BeamConfig
from pipeline.config import (
    DataConfig,
    EvaluationConfig,
    PipelineConfig,
    ServingConfig,
)
from pipeline.kubeflow_config import KubeflowConfig, ResourcesConfig
from pipeline.training_job_config import TrainingJobConfig


def load_config(name_or_file: str, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Returns the checked configuration.

    Args:
        name_or_file: One of ours (`shakespeare`, `tiny`, `gpt2`, ...) or a YAML file.
        overrides: `a.b=value` each; the value is read as YAML.

    Raises:
        ValueError: The file is missing or no YAML, a key is given twice, unknown, missing or out
            of range; of the latter three the message has every such key, its value and the rule.
    """
    path = _find(name_or_file)
    try:
        fields = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path} must hold keys and values, got {type(fields).__name__}")
    for override in overrides:
        _override(fields, override)
    try:
        # By way of JSON, where "strict" means what a YAML file's author expects: 1 is a number with
        # a fraction too, while true and "1" are none.
        return _ADAPTER.validate_json(json.dumps(fields, default=str), strict=True)
    except pydantic.ValidationError as error:
        problems = "\n".join(f"  {_describe(problem)}" for problem in error.errors())
        settings = "".join(f" --set {shlex.quote(override)}" for override in overrides)
        described = f"{path} with{settings}" if overrides else path
        raise ValueError(f"{described} does not describe a run:\n{problems}") from error


class _Loader(yaml.SafeLoader):
    """Reads 3e-4 as a number and refuses a key's second value, as YAML 1.2 has it.

    PyYAML's 1.1 wants 3.0e-4, and it takes the last value.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, yaml.Mark] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):  # no key of ours, as is told later
                continue
            key, place = key_node.value, key_node.start_mark
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    f"key {key!r} is given", seen[key], "and once more", place
                )
            seen[key] = place
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def known_configs() -> list[str]:
    """Returns the names of our own configurations."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def _folder() -> Path:
    return Path(str(resources.files("pipeline"))) / "configs"


def _find(name_or_file: str) -> Path:
    if name_or_file in known_configs():
        return _folder() / f"{name_or_file}.yaml"
    path = Path(name_or_file)
    if not path.is_file():
        raise ValueError(
            f"config must be a YAML file or one of {', '.join(known_configs())}, "
            f"got {name_or_file!r}, which is no file"
        )
    return path


def _override(fields: dict[str, Any], override: str) -> None:
    """Puts the value of `a.b=value` where it belongs."""
    key, equals, value = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ValueError(f"an override must look like training.steps=100, got {override!r}")
    *parents, last = key.split(".")
    for parent in parents:
        if fields.get(parent) is None:
            fields[parent] = {}
        fields = fields[parent]
        if not isinstance(fields, dict):
            raise ValueError(f"{override!r}: {parent} has no keys below it")
    try:
        fields[last] = yaml.load(value, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{override!r}: the value is not YAML: {error}") from error


def _describe(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "the file"
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{key}: unknown key (value {problem['input']!r})"
    if problem["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{key}: required, but not given"
    if problem["type"] == "value_error":
        error = problem["ctx"]["error"]
        return f"{key}: {error}" if problem["loc"] else str(error)  # of several keys, it names them
    return f"{key}: {problem['msg']}, got {problem['input']!r}"


_PARTS = (
    GPT2Config,
    StrategyConfig,
    TrainingConfig,
    DataConfig,
    EvaluationConfig,
    BeamConfig,
    ServingConfig,
    ResourcesConfig,
    TrainingJobConfig,
    KubeflowConfig,
    PipelineConfig,
)
for _part in _PARTS:
    # Read by pydantic: an unknown key is an error. Set from here, so that `model` stays without it.
    setattr(_part, "__pydantic_config__", pydantic.ConfigDict(extra="forbid"))  # noqa: B010
_ADAPTER = pydantic.TypeAdapter(PipelineConfig)
