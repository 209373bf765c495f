"""What is wrong with a Kubernetes manifest, by the models of Kubernetes' own Python client.

The client itself checks that required fields are there, and nothing else: it sends a misspelt key
like any other, and the cluster drops it without a word.
"""

import datetime
import functools
import re
from collections.abc import Iterator
from typing import Any

from kubernetes import client
from kubernetes.utils import parse_quantity

_SCALARS = {"str": str, "bool": bool, "int": int, "float": (int, float)}
# Models whose maps, fields of strings to the client, hold amounts such as 500m and 2Gi.
_AMOUNTS = {
    "V1ResourceRequirements",
    "V1ResourceQuotaSpec",
    "V1PersistentVolumeSpec",
}
# The client of 1.26 demands it of each rule. The API refuses a rule that has both this and
# onExitCodes, and later clients don't demand it.
_NOT_REQUIRED = {("V1PodFailurePolicyRule", "on_pod_conditions")}


def check_manifest(manifest: dict[str, Any]) -> list[str]:
    """Returns a line for each thing that is wrong; none for a manifest that is right.

    Unknown kinds and keys, missing required fields, values of the wrong type and amounts that
    don't parse. What the client's models leave open, such as the words that a field may have, is
    not checked.

    Args:
        manifest: One object, as read from YAML: with `apiVersion`, `kind` and `metadata.name`.
    """
    model = _model(manifest.get("apiVersion"), manifest.get("kind"))
    if model is None:
        return [f"no such object: {manifest.get('apiVersion')!r}, {manifest.get('kind')!r}"]
    problems = list(_check_model(manifest, model, manifest["kind"]))
    if "spec" in model.openapi_types and "spec" not in manifest:
        problems.append(f"{manifest['kind']}: spec is required")
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict) or not (metadata.get("name") or metadata.get("generateName")):
        problems.append(f"{manifest['kind']}: metadata.name is required")
    return problems


def _model(api_version: object, kind: object) -> Any:
    """Returns the client's class of such objects, or None if the API group has none."""
    if not isinstance(api_version, str) or not isinstance(kind, str):
        return None
    group, _, version = api_version.rpartition("/")
    # "rbac.authorization.k8s.io/v1" is served by RbacAuthorizationV1Api, "v1" by CoreV1Api.
    words = re.split(r"[.-]", group.removesuffix(".k8s.io")) if group else ["core"]
    api = "".join(word.capitalize() for word in words) + version.capitalize() + "Api"
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower()
    known = dir(getattr(client, api, None))
    if f"create_namespaced_{snake}" not in known and f"create_{snake}" not in known:
        return None
    return getattr(client, version.capitalize() + kind, None)


def _check_model(value: object, model: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: must hold keys and values, got {value!r}"
        return
    names = {key: name for name, key in model.attribute_map.items()}
    for key, each in value.items():
        if key not in names:
            yield f"{path}: unknown key {key!r}"
        elif each is None:
            yield f"{path}.{key}: must have a value or be left out"
        elif model.__name__ in _AMOUNTS and model.openapi_types[names[key]] == "dict(str, str)":
            yield from _check_amounts(each, f"{path}.{key}")
        else:
            yield from _check(each, model.openapi_types[names[key]], f"{path}.{key}")
    for name in _required(model):
        if model.attribute_map[name] not in value:
            yield f"{path}: {model.attribute_map[name]} is required"


def _check(value: object, kind: str, path: str) -> Iterator[str]:
    """Checks a value of a type that the client names: `str`, `list[V1Volume]`, `dict(str, str)`."""
    if kind == "object":  # anything: a port's number or name, say
        return
    if kind.startswith("list["):
        if isinstance(value, list):
            for index, each in enumerate(value):
                yield from _check(each, kind[len("list[") : -1], f"{path}[{index}]")
        else:
            yield f"{path}: must be a list, got {value!r}"
    elif kind.startswith("dict("):
        if isinstance(value, dict):
            for key, each in value.items():
                yield from _check(key, "str", f"{path}'s key")
                yield from _check(each, kind[len("dict(str, ") : -1], f"{path}.{key}")
        else:
            yield f"{path}: must hold keys and values, got {value!r}"
    elif kind == "datetime":
        if not isinstance(value, str | datetime.datetime):
            yield f"{path}: must be a time, got {value!r}"
    elif kind in _SCALARS:
        is_wrong_bool = isinstance(value, bool) and kind != "bool"
        if is_wrong_bool or not isinstance(value, _SCALARS[kind]):  # type: ignore[arg-type]
            yield f"{path}: must be of type {kind}, got {value!r}"
    else:
        yield from _check_model(value, getattr(client, kind), path)


def _check_amounts(value: object, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: must hold keys and values, got {value!r}"
        return
    for key, amount in value.items():
        try:
            parse_quantity(amount)
        except ValueError:
            yield f"{path}.{key}: must be an amount such as 2, 500m or 4Gi, got {amount!r}"


@functools.cache
def _required(model: Any) -> tuple[str, ...]:
    """Returns the fields without which the client refuses to make the model."""
    unchecked = client.Configuration()
    unchecked.client_side_validation = False
    instance = model(local_vars_configuration=unchecked)
    instance.local_vars_configuration = client.Configuration()
    required = []
    for name in model.openapi_types:
        try:
            setattr(instance, name, None)
        except ValueError:
            if (model.__name__, name) not in _NOT_REQUIRED:
                required.append(name)
    return tuple(required)
