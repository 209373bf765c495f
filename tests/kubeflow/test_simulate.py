"""kubeflow/simulate.py: the driver's and the launcher's part, on pipelines of small scripts."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kubeflow.simulate import FinishedTask, TaskError
from pipeline import cli
from pipeline.kubeflow_commands import remark_on
from tests.small_pipeline import RECORD, ROOT, TYPE, container, pipeline, play, task, write


def recorded(folder: Path, finished: FinishedTask) -> dict[str, Any]:
    uri = finished.outputs["out"]["uri"]
    assert uri.startswith(f"{ROOT}/small/")
    path = folder / "buckets" / "s3" / uri.removeprefix("s3://") / "task.json"
    return json.loads(path.read_text())


def test_a_task_gets_its_parameters_by_the_real_command(tmp_path):
    first, _ = play(tmp_path, pipeline())
    said = recorded(tmp_path, first)
    assert said["task"]["inputs"] == {
        "parameterValues": {"given": 60, "fixed": 5, "text": "{{no placeholder}}"}
    }
    assert said["argv"][2] == "an argument"
    assert said["environment"]["COLOUR"] == "blue"
    (artifact,) = said["task"]["outputs"]["artifacts"]["out"]["artifacts"]
    assert (artifact["type"], artifact["metadata"]) == (TYPE, {"known": "before"})


def test_a_runs_parameter_replaces_its_default(tmp_path):
    first, _ = play(tmp_path, pipeline(), steps=7)
    assert recorded(tmp_path, first)["task"]["inputs"]["parameterValues"]["given"] == 7


def test_a_later_task_gets_the_artifact_without_its_type_and_with_stored_properties(tmp_path):
    finished = play(tmp_path, pipeline())
    assert [one.name for one in finished] == ["z_first", "a_second"]
    (model,) = recorded(tmp_path, finished[1])["task"]["inputs"]["artifacts"]["model"]["artifacts"]
    assert model == {
        "name": "1",
        "uri": finished[0].outputs["out"]["uri"],
        "metadata": {
            "known": "before",
            "display_name": "out",
            "number": 3,
            "flag": 1,
            "text": "x",
            "list": {"list": [1]},
            "struct": {"struct": {"a": "b"}},
        },
    }
    assert model["metadata"]["flag"] is not True


# Prints the names of all that lies in the run's folder, below its task's.
LIST = """
import os, pathlib
(run,) = pathlib.Path(os.environ["GPT2_TFX_BUCKETS"], "s3/bucket/root/small").glob("[!.]*")
for path in sorted(run.rglob("*")):
    print(path.name, end=" ")
"""


@pytest.mark.parametrize("declares", [True, False])
def test_a_task_finds_the_files_of_what_it_declares_and_no_other_artifact(declares, tmp_path):
    document = pipeline()
    executors = document["deploymentSpec"]["executors"]
    executors["z_first_executor"] = container(f"{RECORD}os.mkdir(folder + '/empty')")
    executors["a_second_executor"] = container(LIST)
    if not declares:
        tasks = document["root"]["dag"]["tasks"]
        tasks["a_second"] = task("a_second", dependentTasks=["z_first"])
    first, _ = play(tmp_path, document)
    (log,) = tmp_path.glob("buckets/logs/*/a_second/log.txt")
    names = [name for name in log.read_text().split() if len(name) < 32]  # without the unique one
    assert names == (["a_second", "z_first", "out", "task.json"] if declares else ["a_second"])
    # Afterwards everything is in its place, and nothing else is.
    assert recorded(tmp_path, first)["argv"]
    assert [path.name[:1] for path in (tmp_path / "buckets/s3/bucket/root/small").iterdir()] == [
        "2"
    ]


def test_a_run_that_failed_leaves_what_it_made(tmp_path):
    document = pipeline()
    executors = document["deploymentSpec"]["executors"]
    executors["a_second_executor"] = container(f"{RECORD}raise SystemExit(1)")
    with pytest.raises(TaskError, match="a_second"):
        play(tmp_path, document)
    made = (tmp_path / "buckets/s3/bucket/root/small").glob("2*/*/*/out/task.json")
    assert sorted(path.parts[-4] for path in made) == ["a_second", "z_first"]


def test_two_runs_write_to_folders_of_their_own(tmp_path):
    uris = {play(tmp_path, pipeline())[0].outputs["out"]["uri"] for _ in range(2)}
    assert len(uris) == 2


def test_a_task_without_outputs_is_run(tmp_path):
    document = pipeline()
    del document["components"]["a_second"]["outputDefinitions"]
    document["deploymentSpec"]["executors"]["a_second_executor"] = container("print('was here')")
    finished = play(tmp_path, document)
    assert finished[1].outputs == {}
    (log,) = tmp_path.glob("buckets/logs/*/a_second/log.txt")
    assert log.read_text() == "was here\n"


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("print('a last word'); raise SystemExit(3)", "ended with exit code 3; .*\na last word$"),
        ("import os; os.kill(os.getpid(), 9)", "ended with exit code -9; "),
    ],
)
def test_the_first_task_that_fails_ends_the_run_with_the_end_of_its_log(script, problem, tmp_path):
    document = pipeline()
    document["deploymentSpec"]["executors"]["z_first_executor"] = container(script)
    with pytest.raises(TaskError, match=f"(?s)^z_first {problem}"):
        play(tmp_path, document)
    assert not list(tmp_path.rglob("a_second"))


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ({"artefacts": {}}, 'no field named "artefacts"'),
        (
            {"artifacts": {"out": {"artifacts": [{"metadata": {"x": None}}]}}},
            "property x is null, which Kubeflow's metadata can't hold",
        ),
    ],
)
def test_an_output_that_the_launcher_refuses_is_an_error(output, problem, tmp_path):
    document = pipeline()
    document["deploymentSpec"]["executors"]["z_first_executor"] = container(
        "import json, sys\n"
        "path = json.loads(sys.argv[1])['outputs']['outputFile']\n"
        f"open(path, 'w').write({json.dumps(output)!r})"
    )
    with pytest.raises(Exception, match=problem):
        play(tmp_path, document)


def test_without_a_bucket_for_artifacts_there_is_no_run(tmp_path):
    document = pipeline()
    del document["defaultPipelineRoot"]
    with pytest.raises(ValueError, match="pipeline root must be gs://BUCKET"):
        play(tmp_path, document)


@pytest.mark.parametrize(
    ("metadata", "remark"),
    [
        ({"span": 3}, ""),
        ({"blessed": {"train": 1.0, "eval": 1.0}}, ""),
        ({"blessed": 1.0}, "blessed"),
        ({"blessed": 0.0}, "not blessed: see log.txt"),
        ({"pushed": 1.0, "pushed_destination": "s3://models/tiny/7"}, "pushed s3://models/tiny/7"),
        ({"pushed": 0.0}, "nothing pushed"),
        ({"blessed": 0.0, "no_new_data": "true"}, "no new data: nothing to do"),
    ],
)
def test_what_came_of_a_task_is_said_where_it_decides_something(metadata, remark):
    outputs = {"other": {"uri": "", "metadata": {}}, "one": {"uri": "", "metadata": metadata}}
    assert remark_on(FinishedTask("task", 1.0, Path("log.txt"), outputs)) == remark


def test_the_command_prints_a_line_for_each_task_and_fails_with_the_first(tmp_path, capsys):
    path, buckets = write(tmp_path, pipeline()), f"--buckets={tmp_path}/buckets"
    assert cli.main(["kubeflow", "simulate", str(path), buckets, "--parameter=steps=8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["z_first", "a_second", "logs"]
    assert (Path(lines[-1].split()[1]) / "a_second" / "log.txt").is_file()
    assert cli.main(["kubeflow", "simulate", str(path), buckets, "--parameter=steps=8.5"]) == 1
    assert "parameter steps is '8.5': must be a whole number" in capsys.readouterr().err
    document = pipeline()
    document["deploymentSpec"]["executors"]["a_second_executor"] = container("raise KeyError('k')")
    path = write(tmp_path, document)
    assert cli.main(["kubeflow", "simulate", str(path), buckets]) == 1
    printed = capsys.readouterr()
    assert printed.out.split()[0] == "z_first"
    assert "a_second ended with exit code 1" in printed.err
    assert "KeyError: 'k'" in printed.err


def test_a_runs_parameter_out_of_range_is_an_error_before_anything_runs(tmp_path, capsys):
    document = pipeline()
    known = document["root"]["inputDefinitions"]["parameters"]
    known["training_steps"] = {"parameterType": "NUMBER_INTEGER", "defaultValue": 60}
    path, buckets = write(tmp_path, document), tmp_path / "buckets"
    given = [str(path), f"--buckets={buckets}", "--parameter=training_steps=0"]
    assert cli.main(["kubeflow", "simulate", *given]) == 1
    assert "parameter training_steps must be a whole number >= 1" in capsys.readouterr().err
    assert not buckets.exists()


def test_the_images_python_is_this_one(tmp_path):
    document = pipeline()
    script = "import sys; print(sys.executable); raise SystemExit(1)"
    document["deploymentSpec"]["executors"]["z_first_executor"] = container(script)
    with pytest.raises(TaskError, match=sys.executable):
        play(tmp_path, document)
