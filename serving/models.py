"""The models that a server has, by name, and the changes to them that it is asked for.

Codes and messages are those of TensorFlow Serving (`model_servers/server_core.cc` and
`model_servers/get_model_status_impl.cc`).
"""

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from serving.errors import RequestError, invalid
from serving.options import Versions
from serving.versions import (
    LoadedVersion,
    ModelVersions,
    State,
    VersionNotServedError,
    VersionStatus,
)

_PLATFORM = "tensorflow"
_FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


class Models:
    """Has each model's versions, and finds the one that a request means.

    Args:
        report: Told, in one line each, what happens to the models.
        load: Gives the model in a version's folder.
    """

    def __init__(self, report: Callable[[str], None], load: Callable[[Path], Any]) -> None:
        self._report = report
        self._load = load
        self._reloading = threading.Lock()
        self._models: Mapping[str, ModelVersions] = {}  # replaced, never changed

    def add(self, name: str, base_path: Path, wanted: Versions, labels: Mapping[str, int]) -> None:
        """Has a model served from the next `poll` on."""
        versions = self._make(name, base_path, wanted)
        versions.set_labels(labels)
        self._models = {**self._models, name: versions}

    def poll(self) -> None:
        """Looks for new versions of every model.

        Raises:
            OSError: A model's folder cannot be read.
        """
        errors = []
        for versions in self._models.values():
            try:
                versions.poll()
            except OSError as error:  # the other models are looked at all the same
                errors.append(error)
        if errors:
            raise errors[0]

    def names(self) -> list[str]:
        """Returns the models' names, the one that was added first before the others."""
        return list(self._models)

    def statuses(self, name: str) -> list[VersionStatus]:
        """Returns a model's versions that were tried, newest first; none if it is not served."""
        versions = self._models.get(name)
        return [] if versions is None else versions.statuses()

    @property
    def is_available(self) -> bool:
        """Whether there are models, and each has a version that can be used."""
        return bool(self._models) and all(
            any(status.state == State.AVAILABLE for status in versions.statuses())
            for versions in self._models.values()
        )

    @contextlib.contextmanager
    def use(self, spec: model_pb2.ModelSpec) -> Iterator[LoadedVersion]:
        """Returns the version that a request means, which stays loaded until the block ends.

        Raises:
            RequestError: There is none.
        """
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        versions = self._models.get(spec.name)
        number = spec.version.value if spec.HasField("version") else None
        if spec.HasField("version_label"):
            number = _find_label(versions, spec.version_label)
        with contextlib.ExitStack() as stack:
            try:
                if versions is None:
                    raise VersionNotServedError(spec.name)
                version = stack.enter_context(versions.use(number))
            except VersionNotServedError as error:
                wanted = "Latest({})" if number is None else "Specific({}, {})"
                raise RequestError(
                    grpc.StatusCode.NOT_FOUND,
                    f"Servable not found for request: {wanted.format(spec.name, number)}",
                ) from error
            yield version

    def get_status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Returns state and error of one version or, newest first, of all that were tried.

        Raises:
            RequestError: There is no such model or version.
        """
        check_model_spec(request)
        spec = request.model_spec
        versions = self._models.get(spec.name)
        number = spec.version.value if spec.HasField("version") else None
        if spec.HasField("version_label"):
            number = _find_label(versions, spec.version_label)
        statuses = self.statuses(spec.name)
        wanted = "any versions"
        if number is not None:
            wanted = f"version {number}"
            statuses = [status for status in statuses if status.version == number]
        if not statuses:
            raise RequestError(
                grpc.StatusCode.NOT_FOUND, f"Could not find {wanted} of model {spec.name}"
            )
        response = get_model_status_pb2.GetModelStatusResponse()
        for status in statuses:
            entry = response.model_version_status.add(
                version=status.version, state=int(status.state)
            )
            entry.status.error_code = status.error_code
            entry.status.error_message = status.error_message
        return response

    def reload(
        self, request: model_management_pb2.ReloadConfigRequest
    ) -> model_management_pb2.ReloadConfigResponse:
        """Serves the listed models, and only those, once their versions are loaded.

        Raises:
            RequestError: The configuration is wrong, a model has no version that loads, or a
                label was asked for a version that is not available. Nothing has changed then, but
                for the versions of a model whose folder stays, which are those asked for.
        """
        with self._reloading:
            configs = _check_config(request.config)
            models = {name: self._follow(config) for name, config in configs.items()}
            for name, config in configs.items():
                _check_labels(name, config.version_labels, models[name])
            for name, config in configs.items():
                models[name].set_labels(config.version_labels)
            for name in self._models.keys() - models.keys():
                self._report(f"{name}: is served no more")
            self._models = models
        gc.collect()  # without it, the variables of a model that was dropped stay
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = 0
        return response

    def _follow(self, config: model_server_config_pb2.ModelConfig) -> ModelVersions:
        """Returns the model's versions, loaded as the configuration wants them."""
        wanted = _read_policy(config)
        versions = self._models.get(config.name)
        if versions is None or versions.base_path != Path(config.base_path):
            versions = self._make(config.name, Path(config.base_path), wanted)
        versions.want(wanted)
        try:
            versions.poll()
        except OSError as error:
            raise RequestError(_FAILED_PRECONDITION, f"model {config.name}: {error}") from error
        if not any(status.state == State.AVAILABLE for status in versions.statuses()):
            raise RequestError(
                grpc.StatusCode.UNKNOWN, f"Some models did not become available: {{{config.name}}}"
            )
        return versions

    def _make(self, name: str, base_path: Path, wanted: Versions) -> ModelVersions:
        def report(line: str) -> None:
            self._report(f"{name}: {line}")

        return ModelVersions(base_path, report, self._load, wanted)


def check_model_spec(request: Any) -> None:
    """Raises the RequestError of a request that names no model."""
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")


def _find_label(versions: ModelVersions | None, label: str) -> int:
    number = None if versions is None else versions.find_label(label)
    if number is None:
        raise invalid(f"Unrecognized servable version label: {label}")
    return number


def _check_config(
    config: model_server_config_pb2.ModelServerConfig,
) -> dict[str, model_server_config_pb2.ModelConfig]:
    """Returns the models' configurations by name."""
    if config.WhichOneof("config") != "model_config_list":
        raise RequestError(
            _FAILED_PRECONDITION,
            "Cannot transition to requested config. It is only legal to transition from one "
            "ModelConfigList to another.",
        )
    models: dict[str, model_server_config_pb2.ModelConfig] = {}
    for model in config.model_config_list.config:
        if model.name in models:
            raise invalid(f"Illegal to list model {model.name} multiple times in config list")
        if not Path(model.base_path).is_absolute():
            raise invalid(
                f"Expected model {model.name} to have an absolute path or URI; "
                f"got base_path()={model.base_path}"
            )
        if model.model_platform != _PLATFORM:
            raise invalid(
                f"model {model.name}: model_platform must be {_PLATFORM!r}, "
                f"got {model.model_platform!r}"
            )
        models[model.name] = model
    return models


def _read_policy(config: model_server_config_pb2.ModelConfig) -> Versions:
    policy = config.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return "all"
    if kind == "specific":
        if not policy.specific.versions:
            raise invalid(f"model {config.name}: specific must list at least one version")
        return list(policy.specific.versions)
    return policy.latest.num_versions or 1


def _check_labels(name: str, labels: Mapping[str, int], versions: ModelVersions) -> None:
    available = [
        status.version for status in versions.statuses() if status.state == State.AVAILABLE
    ]
    for number in labels.values():
        if number not in available:
            raise RequestError(
                _FAILED_PRECONDITION,
                f"Request to assign label to version {number} of model {name}, "
                "which is not currently available for inference",
            )
