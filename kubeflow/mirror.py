"""Where a task finds what lies in a bucket: Kubeflow's launcher keeps a mirror in the pod.

It downloads a task's input artifacts before, and uploads its outputs afterwards. TensorFlow opens
paths, and of the buckets' URIs gs:// only: so components get paths here, and the metadata URIs.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from pipeline.kubeflow_config import MIRRORS, WORKSPACE, is_in_bucket

# Names a folder that stands for all buckets and for the volume, as in `gpt2-tfx kubeflow simulate`.
VARIABLE = "GPT2_TFX_BUCKETS"

# Among the trainer's settings, what it is told of the pods that train in its place. Those have no
# launcher and no mirror, and what an environment variable of theirs says is not ours to read.
_JOB = "job"

# Stands for the folder of a package of ours, which lies elsewhere in the image than where a
# pipeline is compiled.
PACKAGE = "package:"


@dataclasses.dataclass(frozen=True)
class Mirror:
    """Turns URIs into paths and back.

    Args:
        root: The folder below which the mirrors lie, without a slash at its end.
        is_all: Whether there are no buckets behind it: nothing needs to be copied, and the volume
            lies below `root` too.
        keeps_gs: Whether gs:// stays as it is, which TensorFlow and Beam open.
    """

    root: str = ""
    is_all: bool = False
    keeps_gs: bool = False

    @classmethod
    def of_this_process(cls) -> "Mirror":
        """Returns that of a pod, or the one that the environment names."""
        folder = os.environ.get(VARIABLE)
        return cls(os.path.abspath(folder), True) if folder else cls()

    def to_path(self, text: str) -> str:
        """Returns the path that stands for a URI; any other text as it is."""
        if self.keeps_gs and text.startswith("gs://"):
            return text
        for scheme, folder in MIRRORS.items():
            if text.startswith(scheme):
                return self.root + folder + text.removeprefix(scheme)
        if text.startswith(PACKAGE):
            package, _, name = text.removeprefix(PACKAGE).partition("/")
            return str(Path(str(resources.files(package))) / name)
        if self.is_all and (text + "/").startswith(WORKSPACE + "/"):
            return self.root + text
        return text

    def is_copy(self, text: str) -> bool:
        """Returns whether a text is a URI of which there is a copy here, to be made first."""
        return is_in_bucket(text) and not self.is_all and self.to_path(text) != text

    def to_uri(self, text: str) -> str:
        """Returns the URI that `to_path` made this path of; any other text as it is."""
        for scheme, folder in MIRRORS.items():
            if text.startswith(self.root + folder):
                return scheme + text.removeprefix(self.root + folder)
        if self.is_all and (text + "/").startswith(f"{self.root}{WORKSPACE}/"):
            return text.removeprefix(self.root)
        return text


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Returns JSON's value with each text in it changed, also in texts that are JSON themselves.

    TFX passes a component's larger settings as JSON within JSON.
    """
    if isinstance(value, dict):
        return {
            key: item if key == _JOB else map_texts(item, change) for key, item in value.items()
        }
    if isinstance(value, list):
        return [map_texts(item, change) for item in value]
    if not isinstance(value, str):
        return value
    inner = _parse(value)
    if inner is None:
        return change(value)
    changed = map_texts(inner, change)
    return value if changed == inner else json.dumps(changed)


def find_texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yields each text that `map_texts` would change, with the key it stands under."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name != _JOB:
                yield from find_texts(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from find_texts(item, key)
    elif isinstance(value, str):
        inner = _parse(value)
        if inner is None:
            yield key, value
        else:
            yield from find_texts(inner, key)


def find_text(value: Any, key: str) -> str | None:
    """Returns the text that stands under a key, None where there is none.

    Raises:
        ValueError: Different texts do.
    """
    found = {text for name, text in find_texts(value) if name == key}
    if len(found) > 1:
        raise ValueError(f"{key} must be given once, got {sorted(found)}")
    return found.pop() if found else None


def _parse(text: str) -> dict[str, Any] | list[Any] | None:
    """Returns the object or list that a text is in JSON, if it is one."""
    if text[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None
