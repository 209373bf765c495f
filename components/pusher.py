"""A Pusher whose versions a polling server sees whole or not at all."""

import os
import time
from typing import Any

from tfx.components.pusher import component, executor
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils, path_utils, proto_utils

from components.versions import list_versions

_STAGED = ".staged-"


class Executor(executor.Executor):
    """Copies a blessed model under a name that is no version, then renames it.

    TFX's own copies into the version's folder file by file, where a server that looks each second
    can see half a model. It also names versions by the second, and silently drops the later of
    two pushes within one; here a version is always greater than those before it.
    """

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list],
        output_dict: dict[str, list],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes the model to the destination's folder, if it is blessed.

        Args:
            input_dict: `model`, and `model_blessing` and `infra_blessing`, where these are made.
            output_dict: `pushed_model`: its properties tell whether and where it was pushed.
            exec_properties: `push_destination`.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed_model = artifact_utils.get_single_instance(
            output_dict[standard_component_specs.PUSHED_MODEL_KEY]
        )
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed_model)
            return
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(
            exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination
        )
        base = destination.filesystem.base_directory
        model = artifact_utils.get_single_instance(input_dict[standard_component_specs.MODEL_KEY])
        path = push(path_utils.serving_model_path(model.uri), base)
        self._MarkPushed(pushed_model, pushed_destination=path)
        with fileio.open(os.path.join(pushed_model.uri, "pushed_to.txt"), "w") as file:
            file.write(path + "\n")


class Pusher(component.Pusher):
    """TFX's Pusher with the executor above."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)


def push(model_folder: str, base: str) -> str:
    """Copies a SavedModel to `base` as its newest version and returns the version's folder.

    What earlier pushes left behind when they were killed is deleted. The renaming is atomic on a
    local filesystem; on an object store a folder is copied file by file all the same.
    """
    for left_behind in fileio.glob(os.path.join(base, _STAGED + "*")):
        fileio.rmtree(left_behind)
    version = max([int(time.time()), *(number + 1 for number in list_versions(base))])
    staged = os.path.join(base, f"{_STAGED}{version}")
    path = os.path.join(base, str(version))
    io_utils.copy_dir(model_folder, staged)
    fileio.rename(staged, path)
    return path
