"""components/training_task.py: what goes to the volume, and what comes back."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.training_task import (
    collect_results,
    is_whole,
    read_task,
    stage_task,
    task_folder,
    task_name,
)


def write(path: Path, content: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return str(path)


def arguments(folder: Path, **settings: Any) -> SimpleNamespace:
    """TFX's FnArgs. The volume is `folder/volume`, the pod's own files lie in `folder/pod`."""
    volume, pod = folder / "volume", folder / "pod"
    volume.mkdir(exist_ok=True)
    for split in ("train", "eval"):
        write(pod / split / "part-0.tfrecord", f"examples of {split}")
    defaults = {
        "job": {"image": "gpt2:1", "volume": "claim"},
        "model": {"num_layers": 1},
        "start": "scratch",
        "serving_folder": str(pod / "serving"),
        "checkpoints": str(volume / "checkpoints"),
    }
    return SimpleNamespace(
        custom_config=defaults | settings,
        train_files=[str(pod / "train" / "*")],
        eval_files=[str(pod / "eval" / "*")],
        serving_model_dir=str(pod / "model" / "3"),
        model_run_dir=str(pod / "model_run" / "3"),
    )


def staged(fn_args: SimpleNamespace, folder: Path) -> Any:
    return read_task(stage_task(fn_args, str(folder / "volume"), "task"))


def test_the_pods_files_are_copied_each_under_its_own_path(tmp_path):
    fn_args = arguments(tmp_path)
    task = staged(fn_args, tmp_path)
    folder = task_folder(str(tmp_path / "volume"), "task")
    assert folder == tmp_path / "volume" / "training-jobs" / "task"
    assert task.train_files == [f"{folder}/inputs{tmp_path}/pod/train/part-0.tfrecord"]
    assert task.eval_files == [f"{folder}/inputs{tmp_path}/pod/eval/part-0.tfrecord"]
    assert Path(task.train_files[0]).read_text() == "examples of train"
    assert (task.serving_model_dir, task.model_run_dir) == (
        f"{folder}/model",
        f"{folder}/model_run",
    )
    assert "job" not in task.custom_config


def test_what_is_on_the_volume_anyway_stays_where_it_is(tmp_path):
    file = write(tmp_path / "volume" / "examples" / "part-0.tfrecord", "examples")
    weights = tmp_path / "volume" / "weights"
    write(weights / "model.safetensors", "weights")
    fn_args = arguments(tmp_path, start=str(weights))
    fn_args.train_files = [file]
    task = staged(fn_args, tmp_path)
    assert task.train_files == [file]
    assert task.custom_config["start"] == str(weights)


def test_weights_to_start_from_go_with_all_that_is_in_their_folder(tmp_path):
    weights = tmp_path / "pod" / "weights"
    write(weights / "saved_model.pb", "graph")
    write(weights / "variables" / "variables.index", "values")
    start = Path(staged(arguments(tmp_path, start=str(weights)), tmp_path).custom_config["start"])
    # The path it came from is to be read in it: the model's description will have it.
    assert str(start).endswith(f"/inputs{weights}")
    assert (start / "saved_model.pb").read_text() == "graph"
    assert (start / "variables" / "variables.index").read_text() == "values"


def test_all_workers_start_from_the_version_that_is_in_production_now(tmp_path):
    for version in (3, 12):
        write(tmp_path / "pod" / "serving" / str(version) / "saved_model.pb", f"version {version}")
    settings = staged(arguments(tmp_path, start="production"), tmp_path).custom_config
    assert settings["start"] == "production"
    (folder,) = Path(settings["serving_folder"]).iterdir()
    assert folder.name == "12"
    assert (folder / "saved_model.pb").read_text() == "version 12"


def test_where_nothing_is_in_production_all_workers_start_from_scratch(tmp_path):
    settings = staged(arguments(tmp_path, start="production"), tmp_path).custom_config
    assert settings["start"] == "scratch"


def test_the_task_of_an_earlier_attempt_stays_as_it_is(tmp_path):
    before = staged(arguments(tmp_path, start="production"), tmp_path)
    write(tmp_path / "pod" / "serving" / "1" / "saved_model.pb", "pushed meanwhile")
    assert staged(arguments(tmp_path, start="production"), tmp_path) == before


def test_the_results_are_fetched_and_the_tasks_folder_goes(tmp_path):
    fn_args = arguments(tmp_path)
    task = staged(fn_args, tmp_path)
    write(Path(task.serving_model_dir) / "variables" / "variables.index", "values")
    write(Path(task.model_run_dir) / "training.json", "{}")
    Path(fn_args.model_run_dir).mkdir(parents=True)  # as TFX does
    collect_results(fn_args, str(tmp_path / "volume"), "task")
    assert Path(fn_args.serving_model_dir, "variables", "variables.index").read_text() == "values"
    assert Path(fn_args.model_run_dir, "training.json").read_text() == "{}"
    assert not task_folder(str(tmp_path / "volume"), "task").exists()


def test_a_result_is_not_whole_any_more_once_its_deletion_has_begun(tmp_path, monkeypatch):
    def stop(folder: Path) -> None:
        raise KeyboardInterrupt

    fn_args = arguments(tmp_path)
    task = staged(fn_args, tmp_path)
    write(Path(task.serving_model_dir) / "saved_model.pb", "graph")
    assert not is_whole(task.model_run_dir)
    write(Path(task.model_run_dir) / "training.json", "{}")
    assert is_whole(task.model_run_dir)
    monkeypatch.setattr(shutil, "rmtree", stop)
    with pytest.raises(KeyboardInterrupt):
        collect_results(fn_args, str(tmp_path / "volume"), "task")
    assert not is_whole(task.model_run_dir)


def test_a_name_is_a_tasks_own_and_stays_its_own(tmp_path):
    name = task_name(arguments(tmp_path))
    assert task_name(arguments(tmp_path)) == name
    assert len(name) <= 59  # a pod's name is a host's, of 63 characters, with -100 behind it
    other_run = arguments(tmp_path)
    other_run.serving_model_dir += "1"
    other_settings = arguments(tmp_path, model={"num_layers": 2})
    names = [name, task_name(other_run), task_name(other_settings)]
    other_data = arguments(tmp_path)
    write(tmp_path / "pod" / "train" / "part-0.tfrecord", "examples of tram ")
    names.append(task_name(other_data))
    assert len(set(names)) == 4
