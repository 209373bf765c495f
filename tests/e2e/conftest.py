"""One run of the configuration `tiny` through the command line, which the tests here share."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

ROOT = Path(__file__).parent.parent.parent


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What `gpt2-tfx run` left behind; later runs may have added to its output folder.

    Attributes:
        output: The folder that all was written to.
        overrides: What `--set` was given.
        stdout, stderr: What was printed.
        summary: What `summary.json` said.
        metrics: The lines of the training's `metrics.jsonl`.
    """

    output: Path
    overrides: list[str]
    stdout: str
    stderr: str
    summary: dict[str, Any]
    metrics: list[str]

    @property
    def serving_base(self) -> Path:
        return self.output / "serving" / "tiny"

    def versions(self) -> list[str]:
        return sorted(os.listdir(self.serving_base))


def start(folder: Path, *command: str, **environment: str) -> subprocess.Popen[str]:
    """Starts a program in the folder; it finds our packages, and its outputs are captured."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_run(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    """Starts `gpt2-tfx run --config tiny` in the folder, with `--set` for each override."""
    options = [f"--set={override}" for override in overrides]
    return start(folder, sys.executable, "-m", "pipeline", "run", "--config", "tiny", *options)


def is_of_eval(text: str) -> bool:
    """Whether the text is in the eval split, from first principles."""
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))
    return int(hashlib.sha256(feature.SerializeToString()).hexdigest(), 16) % 1000 >= 900


def read_metrics(output: Path) -> list[str]:
    """The lines of `metrics.jsonl`, of the one training that this folder may have."""
    (path,) = output.glob("checkpoints/*/metrics.jsonl")
    return path.read_text().splitlines()


def read_weights(version_folder: str) -> dict[str, np.ndarray]:
    """What the signature `evaluate` of a pushed model reads, as `block_0/attention/.../kernel`."""
    loaded = tf.saved_model.load(version_folder)  # signatures don't keep their variables alive
    return {
        variable.name.partition("/")[2].removesuffix(":0"): variable.numpy()
        for variable in loaded.signatures["evaluate"].variables
    }


@pytest.fixture(scope="session")
def first_run(tmp_path_factory) -> FinishedRun:
    folder = tmp_path_factory.mktemp("first-run")
    overrides = [f"output={folder}/output"]
    process = start_run(folder, *overrides)
    stdout, stderr = process.communicate(timeout=500)
    assert process.returncode == 0, stderr
    output = folder / "output"
    summary = json.loads((output / "summary.json").read_text())
    return FinishedRun(output, overrides, stdout, stderr, summary, read_metrics(output))
