"""What the workers of a training Job are to do, in a file on the volume that all of them have.

<mount path>/training-jobs/<name of the Job>/
    task.json    the fields of TFX's FnArgs that run_fn reads, as JSON
    inputs/      copies, each under its own path, of what is not on the volume anyway
    model/       what the chief writes: the model
    model_run/   and then the report, training.json, by which the result is whole

The folder is deleted when the Trainer has fetched both.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.start import PRODUCTION, SCRATCH
from components.transformed_examples import fingerprint, list_files
from components.versions import newest_version
from model.staged_file import write_whole

REPORT = "training.json"
TASK, INPUTS, MODEL, MODEL_RUN = "task.json", "inputs", "model", "model_run"
_FOLDER = "training-jobs"


@dataclasses.dataclass(frozen=True)
class TrainingTask:
    """The fields of TFX's FnArgs that `components.trainer.run_fn` reads."""

    custom_config: dict[str, Any]
    train_files: list[str]
    eval_files: list[str]
    serving_model_dir: str
    model_run_dir: str


def read_task(file: str | os.PathLike[str]) -> TrainingTask:
    """Returns the task in a file.

    Raises:
        ValueError: The file does not hold the fields of a `TrainingTask`.
    """
    try:
        return TrainingTask(**json.loads(Path(file).read_text()))
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{os.fspath(file)} must hold a training task: {error}") from error


def is_whole(model_run_dir: str | os.PathLike[str]) -> bool:
    """Returns whether the chief has written all that it has to: the report is the last.

    Args:
        model_run_dir: The report's folder, which need not exist.
    """
    try:
        json.loads(Path(model_run_dir, REPORT).read_text())
    except (FileNotFoundError, json.JSONDecodeError):  # not there, or cut off
        return False
    return True


def task_name(fn_args: Any) -> str:
    """Returns a name, fit for a Job, that belongs to this task and to no other.

    TFX gives each run an output folder of its own, which stays the same when the orchestrator tries
    the task again. Settings and data are in the name too, lest a Job be taken for another's where
    someone cleared the metadata, and the count of the output folders begins anew.
    """
    data = fingerprint(list_files([*fn_args.train_files, *fn_args.eval_files]))
    described = [fn_args.serving_model_dir, fn_args.custom_config, data]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return f"gpt2-training-{digest[:12]}"


def task_folder(mount_path: str, name: str) -> Path:
    """Returns the folder, which need not exist, of the task of that name."""
    return Path(mount_path) / _FOLDER / name


def stage_task(fn_args: Any, mount_path: str, name: str) -> Path:
    """Writes the task's file, once what the workers would not see is copied to the volume.

    The file of an earlier attempt stays as it is: the Job may still be at it.

    Args:
        fn_args: TFX's FnArgs, with `job` in `custom_config`.
        mount_path: Where the volume is, here and with the workers.
        name: The task's name.

    Raises:
        ValueError: The volume is not there, or the checkpoints are not on it.
    """
    settings = {key: value for key, value in fn_args.custom_config.items() if key != "job"}
    if not Path(mount_path).is_dir():
        raise ValueError(
            f"job.mount_path must be where the Trainer's pod has the volume, {mount_path!r} is no "
            "folder here"
        )
    settings["checkpoints"] = os.path.abspath(settings["checkpoints"])
    if not _is_below(settings["checkpoints"], mount_path):
        raise ValueError(
            f"checkpoints must lie on the volume of all workers, below {mount_path}, "
            f"got {settings['checkpoints']!r}"
        )
    folder = task_folder(mount_path, name)
    file = folder / TASK
    if file.exists():
        return file
    stage = _Stage(Path(mount_path), folder / INPUTS)
    task = TrainingTask(
        custom_config=settings | _stage_start(settings, stage),
        train_files=stage.files(list_files(fn_args.train_files)),
        eval_files=stage.files(list_files(fn_args.eval_files)),
        serving_model_dir=str(folder / MODEL),
        model_run_dir=str(folder / MODEL_RUN),
    )
    write_whole(file, json.dumps(dataclasses.asdict(task), indent=2) + "\n")
    return file


def collect_results(fn_args: Any, mount_path: str, name: str) -> None:
    """Copies the model and the report to where TFX wants them, and deletes the task's folder."""
    folder = task_folder(mount_path, name)
    for source, target in (
        (folder / MODEL, fn_args.serving_model_dir),
        (folder / MODEL_RUN, fn_args.model_run_dir),
    ):
        shutil.copytree(source, target, dirs_exist_ok=True)
    # First what says that the rest is whole, which it is no more if this is interrupted.
    (folder / MODEL_RUN / REPORT).unlink()
    shutil.rmtree(folder)


@dataclasses.dataclass(frozen=True)
class _Stage:
    """Copies files, each under its own path, where they are not on the volume anyway."""

    volume: Path
    folder: Path

    def files(self, files: Sequence[str]) -> list[str]:
        return [self.file(file) for file in files]

    def file(self, file: str) -> str:
        path = os.path.abspath(file)
        if _is_below(path, self.volume):
            return path
        copy = self.folder / path.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        return str(copy)

    def tree(self, folder: str) -> str:
        path = os.path.abspath(folder)
        if _is_below(path, self.volume):
            return path
        for parent, _, names in os.walk(path):
            self.files([os.path.join(parent, name) for name in names])
        return str(self.folder / path.lstrip("/"))


def _stage_start(settings: dict[str, Any], stage: _Stage) -> dict[str, str]:
    """Returns the settings by which the workers find the weights to start from.

    What is in production is settled here: the workers must not find different versions.
    """
    start, serving_folder = settings["start"], settings["serving_folder"]
    if start == SCRATCH:
        return {}
    if start != PRODUCTION:
        return {"start": stage.tree(start)}
    version = newest_version(serving_folder)
    if version is None:
        return {"start": SCRATCH}
    # A folder in which it is the only one.
    chosen = stage.folder / "production"
    shutil.copytree(Path(serving_folder, str(version)), chosen / str(version), dirs_exist_ok=True)
    return {"serving_folder": str(chosen)}


def _is_below(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    return Path(path).is_relative_to(os.path.abspath(folder))
