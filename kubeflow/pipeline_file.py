"""A compiled pipeline's file, checked before a cluster sees it, and what a run of it is given."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from kubeflow.run_parameters import check_run_parameters, check_steps

_SCHEMA_VERSION = "2.1.0"  # the only one that the open-source backend takes

_TYPES = pipeline_spec_pb2.ParameterType.ParameterTypeEnum
# What a parameter's value may be beside a STRING, which is taken as it is; in words and in Python.
_JSON_TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    "NUMBER_INTEGER": ("a whole number", (int,)),
    "NUMBER_DOUBLE": ("a number", (int, float)),
    "BOOLEAN": ("true or false", (bool,)),
    "LIST": ("a list in JSON", (list,)),
    "STRUCT": ("a mapping in JSON", (dict,)),
}


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One runtime parameter: its type by KFP's name for it, and whether a run may leave it out."""

    type: str
    optional: bool


@dataclasses.dataclass(frozen=True)
class PipelineFile:
    """A file that the backend will accept, and what it says.

    Args:
        path: Where it is.
        spec: KFP's PipelineSpec in JSON's terms, without what is null in the file.
        platforms: The documents that follow it.
        name: The pipeline's.
        sha256: Of the file.
        pipeline_root: The bucket's folder for artifacts, if it has one.
        parameters: A run's.
    """

    path: str
    spec: dict[str, Any]
    platforms: list[dict[str, Any]]
    name: str
    sha256: str
    pipeline_root: str | None
    parameters: Mapping[str, Parameter]


def read_pipeline_file(path: str) -> PipelineFile:
    """Returns what a compiled pipeline's file says.

    Raises:
        ValueError: the file is no pipeline that was compiled for KFP's schema 2.1.0, in YAML.
        OSError: it cannot be read.
    """
    if not path.endswith((".yaml", ".yml")):  # by which the client and the server tell its format
        raise ValueError(f"FILE is {path!r}: must be a compiled pipeline, .yaml or .yml")
    content = Path(path).read_bytes()
    document, *platforms = _documents(path, content)
    try:
        spec = json_format.ParseDict(document, pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        raise ValueError(
            f"{path}: must be a compiled pipeline, as `gpt2-tfx kubeflow compile` writes it, "
            f"but: {error}"
        ) from None
    if spec.schema_version != _SCHEMA_VERSION:
        raise ValueError(
            f"{path}: schemaVersion is {spec.schema_version!r}: must be {_SCHEMA_VERSION!r}, which "
            "`gpt2-tfx kubeflow compile` writes"
        )
    if not spec.pipeline_info.name or not spec.root.dag.tasks:
        raise ValueError(f"{path}: must be a compiled pipeline, with a name and tasks")
    parameters = {
        name: Parameter(
            _TYPES.Name(parameter.parameter_type),
            optional=parameter.is_optional or parameter.HasField("default_value"),
        )
        for name, parameter in spec.root.input_definitions.parameters.items()
    }
    return PipelineFile(
        path=path,
        spec=json_format.MessageToDict(spec),
        platforms=platforms,
        name=spec.pipeline_info.name,
        sha256=hashlib.sha256(content).hexdigest(),
        pipeline_root=spec.default_pipeline_root or None,
        parameters=parameters,
    )


def _documents(path: str, content: bytes) -> list[dict[str, Any]]:
    """Returns the file's YAML."""
    try:
        documents = [document for document in yaml.safe_load_all(content) if document is not None]
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: must be a compiled pipeline, but is no YAML: {error}") from None
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise ValueError(f"{path}: must be a compiled pipeline, a mapping of keys")
    return documents


def parameter_values(pipeline: PipelineFile, assignments: Sequence[str]) -> dict[str, Any]:
    """Returns what a run is given for its parameters, each of the type that the file says.

    Those that we know by name are in range, too.

    Args:
        pipeline: The file.
        assignments: `name=value` each. Lists and mappings are JSON.

    Raises:
        ValueError: an assignment has no =, a name that the file does not have or that came before,
            or a value of another type or out of range; or a parameter without a default is
            missing.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"parameter is {assignment!r}: must be name=value")
        if name not in pipeline.parameters:
            known = ", ".join(sorted(pipeline.parameters)) or "none"
            raise ValueError(f"parameter is {name!r}: must be one that the file has: {known}")
        if name in values:
            raise ValueError(f"parameter is {name!r}: must be given once")
        values[name] = _value(name, text, pipeline.parameters[name].type)
    required = {name for name, parameter in pipeline.parameters.items() if not parameter.optional}
    if missing := sorted(required - set(values)):
        raise ValueError(
            f"parameter {', '.join(missing)}: must be given, as the file has no default"
        )
    try:
        check_run_parameters(values)
        check_steps(pipeline.spec, values)
    except ValueError as error:
        raise ValueError(f"parameter {error}") from error
    return values


def _value(name: str, text: str, kind: str) -> Any:
    if kind == "STRING":
        return text
    if kind not in _JSON_TYPES:
        raise ValueError(f"parameter {name} is of type {kind}, which a run cannot be given")
    rule, types = _JSON_TYPES[kind]
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError:
        value = None
    if value in (math.inf, -math.inf):  # 1e999, which could not be sent
        value = None
    # true and false are ints to Python.
    if not isinstance(value, types) or isinstance(value, bool) != (kind == "BOOLEAN"):
        raise ValueError(f"parameter {name} is {text!r}: must be {rule}")
    return value


def _no_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is no number in JSON")
