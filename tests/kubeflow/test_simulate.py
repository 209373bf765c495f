"""kubeflow/simulate.py: the driver's and the launcher's part, on pipelines of small scripts."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeflow.compiled import read_compiled
from kubeflow.simulate import FinishedTask, TaskError, simulate
from pipeline import cli

ROOT = "s3://bucket/root"
TYPE = {"instanceSchema": "title: tfx.Model\ntype: object\n"}

# Writes what it was given into its output's folder, and properties into the output file.
RECORD = """
import json, os, sys
task, root = json.loads(sys.argv[1]), os.environ["GPT2_TFX_BUCKETS"]
(artifact,) = task["outputs"]["artifacts"]["out"]["artifacts"]
folder = artifact["uri"].replace("s3://", root + "/s3/")
assert os.path.isdir(os.path.dirname(folder)) and not os.path.exists(folder)
os.mkdir(folder)
with open(folder + "/task.json", "w") as file:
    json.dump({"task": task, "environment": dict(os.environ), "argv": sys.argv}, file)
properties = {"number": 3, "flag": True, "text": "x", "list": [1], "struct": {"a": "b"}}
with open(task["outputs"]["outputFile"], "w") as file:
    json.dump({"artifacts": {"out": {"artifacts": [{"metadata": properties}]}}}, file)
"""


def task(name: str, inputs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "componentRef": {"name": name},
        "taskInfo": {"name": name},
        "inputs": inputs or {},
    } | more


def after(producer: str) -> dict[str, Any]:
    source = {"producerTask": producer, "outputArtifactKey": "out"}
    return {"artifacts": {"model": {"taskOutputArtifact": source}}}


def container(script: str) -> dict[str, Any]:
    return {
        "container": {
            "image": "image:1",
            "command": ["python", "-c", script],
            "args": ["{{$}}", "an argument"],
            "env": [{"name": "COLOUR", "value": "blue"}],
        }
    }


def pipeline() -> dict[str, Any]:
    """Two tasks, in the file in the wrong order."""
    parameters = {
        "given": {"componentInputParameter": "steps"},
        "fixed": {"runtimeValue": {"constant": 5}},
        "text": {"runtimeValue": {"constant": "{{no placeholder}}"}},
    }
    output = {"artifacts": {"out": {"artifactType": TYPE, "metadata": {"known": "before"}}}}
    return {
        "pipelineInfo": {"name": "small"},
        "schemaVersion": "2.1.0",
        "sdkVersion": "tfx-1.21.0",
        "defaultPipelineRoot": ROOT,
        "components": {
            name: {"executorLabel": f"{name}_executor", "outputDefinitions": copy.deepcopy(output)}
            for name in ("a_second", "z_first")
        },
        "deploymentSpec": {
            "executors": {f"{name}_executor": container(RECORD) for name in ("a_second", "z_first")}
        },
        "root": {
            "dag": {
                "tasks": {
                    "a_second": task("a_second", after("z_first")),
                    "z_first": task("z_first", {"parameters": parameters}),
                }
            },
            "inputDefinitions": {
                "parameters": {"steps": {"parameterType": "NUMBER_INTEGER", "defaultValue": 60}}
            },
        },
    }


def write(folder: Path, *documents: dict[str, Any]) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return path


def play(folder: Path, document: dict[str, Any], **parameters: Any) -> list[FinishedTask]:
    compiled = read_compiled(write(folder, document))
    return list(simulate(compiled, folder / "buckets", parameters))


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


def test_two_runs_write_to_folders_of_their_own(tmp_path):
    uris = {play(tmp_path, pipeline())[0].outputs["out"]["uri"] for _ in range(2)}
    assert len(uris) == 2


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


def _set(*keys: str, value: Any) -> Any:
    """Returns what puts a value into a document at a place."""

    def change(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document.setdefault(key, {})
        document[keys[-1]] = value

    return change


FIRST = ("root", "dag", "tasks", "z_first")
EXECUTOR = ("deploymentSpec", "executors", "z_first_executor")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            _set(*FIRST, "triggerPolicy", value={"condition": "1 == 1"}),
            "task z_first: triggerPolicy is not known to the simulator",
        ),
        (
            _set(*FIRST, "triggerPolicy", value={"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}),
            "task z_first: triggerPolicy is not known",
        ),
        (
            _set(*FIRST, "parameterIterator", value={"itemInput": "x", "items": {"raw": "[1]"}}),
            "task z_first: parameterIterator is not known",
        ),
        (
            _set(*FIRST, "inputs", "parameters", "x", value={"taskOutputParameter": {}}),
            "task z_first: inputs.parameters.x: taskOutputParameter is not known",
        ),
        (
            _set(
                *FIRST,
                "inputs",
                "parameters",
                "custom_config",
                value={"runtimeValue": {"constant": '{"job": {"workers": 2}, "start": "scratch"}'}},
            ),
            "task z_first: inputs.parameters.custom_config: job is not known",
        ),
        (
            _set(*FIRST, "inputs", "artifacts", "x", value={"componentInputArtifact": "y"}),
            "task z_first: inputs.artifacts.x: componentInputArtifact is not known",
        ),
        (
            _set("components", "z_first", value={"dag": {"tasks": {}}}),
            "task z_first: dag is not known",
        ),
        (
            _set("components", "z_first", "outputDefinitions", "parameters", value={"x": {}}),
            "task z_first: outputs: parameters is not known",
        ),
        (_set(*EXECUTOR, value={"resolver": {}}), "task z_first: resolver is not known"),
        (
            _set(*EXECUTOR, value={"importer": {"artifactUri": {"constant": "s3://bucket/x"}}}),
            "task z_first: importer is not known",
        ),
        (
            _set(*EXECUTOR, "container", "lifecycle", value={"preCacheCheck": {}}),
            "task z_first: container: lifecycle is not known",
        ),
        (
            _set(*EXECUTOR, "container", "args", value=["{{$.inputs.parameters['x']}}"]),
            "task z_first: placeholder .*inputs.parameters.* is not known",
        ),
        (
            _set(*FIRST, "dependentTasks", value=["nobody"]),
            r"tasks depend on \['nobody'\], which are no tasks",
        ),
        (_set("root", "dag", "outputs", value={}), "root.dag: outputs is not known"),
        (_set("surprise", value={}), "must be a compiled pipeline, but: .*surprise"),
        (_set(*EXECUTOR, "container", "gpu", value=1), "is not a compiled pipeline: .*gpu"),
    ],
)
def test_what_it_cannot_play_is_an_error_that_names_it_before_anything_runs(
    change, problem, tmp_path
):
    document = pipeline()
    change(document)
    with pytest.raises(ValueError, match=problem):
        play(tmp_path, document)
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline.yaml"]


def test_a_platform_it_does_not_know_is_an_error(tmp_path):
    def platforms(**executor: Any) -> dict[str, Any]:
        executors = {"deploymentSpec": {"executors": {"z_first_executor": executor}}}
        return {"platforms": {"kubernetes": executors}}

    known = platforms(pvcMount=[{"constant": "claim", "mountPath": "/workspace"}])
    assert read_compiled(write(tmp_path, pipeline(), known)).file.name == "small"
    with pytest.raises(ValueError, match="z_first_executor: nodeSelector is not known"):
        read_compiled(write(tmp_path, pipeline(), platforms(nodeSelector={})))


@pytest.mark.parametrize("text", ["", "- a\n- list", "a: [unfinished", "--- 3\n--- 4"])
def test_a_file_that_is_no_pipeline_is_an_error(text, tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"file\.yaml: must be a compiled pipeline"):
        read_compiled(path)


def test_without_a_bucket_for_artifacts_there_is_no_run(tmp_path):
    document = pipeline()
    del document["defaultPipelineRoot"]
    with pytest.raises(ValueError, match="pipeline root must be gs://BUCKET"):
        play(tmp_path, document)


def test_the_command_prints_a_line_for_each_task_and_fails_with_the_first(tmp_path, capsys):
    path, buckets = write(tmp_path, pipeline()), f"--buckets={tmp_path}/buckets"
    assert cli.main(["kubeflow", "simulate", str(path), buckets, "--parameter=steps=8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["z_first", "a_second"]
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
