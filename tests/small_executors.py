"""Executors that write down what they were given, for tests of what stands around executors."""

import json
import os
from pathlib import Path
from typing import Any

from tfx.dsl.components.base.base_executor import BaseExecutor


class Recorder(BaseExecutor):
    """Writes `seen.json` to each output's folder, and sets properties of all kinds.

    The folder must be there already, as it is with TFX's own runners.
    """

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list],
        output_dict: dict[str, list],
        exec_properties: dict[str, Any],
    ) -> None:
        seen = {
            "inputs": {
                key: [(a.type_name, a.uri) for a in value] for key, value in input_dict.items()
            },
            "properties": exec_properties,
            "data": _files(exec_properties.get("input_base", "")),
        }
        for (artifact,) in output_dict.values():
            Path(artifact.uri, "seen.json").write_text(json.dumps(seen))
            artifact.set_string_custom_property("pushed_destination", f"{artifact.uri}/7")
            artifact.set_int_custom_property("blessed", 1)
            _ = artifact.mlmd_artifact.custom_properties["unset"]  # is there by being looked at


class Teller(BaseExecutor):
    """Writes no file, and tells in the outputs' properties where inputs and output are."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list],
        output_dict: dict[str, list],
        exec_properties: dict[str, Any],
    ) -> None:
        for (artifact,) in output_dict.values():
            places = [artifact.uri, *(one.uri for value in input_dict.values() for one in value)]
            artifact.set_string_custom_property("places", f"at {' '.join(places)}")


def _files(folder: str) -> dict[str, str]:
    """What the files hold that are more than zeros."""
    if not os.path.isdir(folder):
        return {}
    texts = {
        str(path.relative_to(folder)): path.read_bytes().strip(b"\0").decode()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }
    return {name: text for name, text in texts.items() if text}
