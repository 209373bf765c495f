"""kubeflow/compiled.py: what can't be played is said before anything runs."""

from typing import Any

import pytest

from kubeflow.compiled import read_compiled
from tests.small_pipeline import pipeline, play, write


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
        (_set("surprise", value={}), "must be a compiled pipeline, as .* but: .*surprise"),
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


def _without(*keys: str) -> Any:
    """Returns what takes a value out of a document."""

    def change(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        del document[keys[-1]]

    return change


SECOND = ("root", "dag", "tasks", "a_second")
MODEL = (*SECOND, "inputs", "artifacts", "model", "taskOutputArtifact")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_without("components"), "components: '(z_first|a_second)' is missing"),
        (_without("components", "z_first"), "components: 'z_first' is missing"),
        (_set("components", "z_first", value={}), "component z_first: 'executorLabel' is miss"),
        (_without("components", "z_first", "executorLabel"), "component z_first: 'executorLabel'"),
        (_without(*FIRST, "componentRef"), "task z_first: 'componentRef' is missing"),
        (_set(*FIRST, "componentRef", value={}), "task z_first: 'name' is missing"),
        (_without("deploymentSpec"), "executors: '(z_first|a_second)_executor' is missing"),
        (_without(*EXECUTOR), "executors: 'z_first_executor' is missing"),
        (_without(*EXECUTOR, "container"), "task z_first: 'container' is missing"),
        (_without(*EXECUTOR, "container", "command"), "task z_first: 'command' is missing"),
        (
            _without("components", "z_first", "outputDefinitions"),
            "task z_first: outputs: 'out' is missing",
        ),
        (
            _without("components", "z_first", "outputDefinitions", "artifacts", "out"),
            "task z_first: outputs: 'out' is missing",
        ),
        (
            _without(
                "components", "z_first", "outputDefinitions", "artifacts", "out", "artifactType"
            ),
            "task z_first: outputs.out: 'artifactType' is missing",
        ),
        (_without("root", "inputDefinitions"), "root.inputDefinitions.parameters: 'steps' is m"),
        (_without(*MODEL, "producerTask"), "a_second: inputs.artifacts.model: 'producerTask' is"),
        (_without(*MODEL, "outputArtifactKey"), "artifacts.model: 'outputArtifactKey' is missing"),
        (_without(*MODEL), "artifacts.model: 'taskOutputArtifact' is missing"),
        (_set(*FIRST, "inputs", "parameters", "x", value={}), "parameters.x: 'runtimeValue' is"),
        (
            _set(*FIRST, "inputs", "parameters", "x", value={"runtimeValue": {}}),
            "parameters.x: 'constant' is missing",
        ),
        (
            _set(*FIRST, "dependentTasks", value=["a_second"]),
            "tasks wait for each other: (z_first -> a_second|a_second -> z_first)",
        ),
    ],
)
def test_what_is_missing_is_an_error_that_names_it_before_anything_runs(change, problem, tmp_path):
    document = pipeline()
    change(document)
    with pytest.raises(ValueError, match=rf"pipeline\.yaml: .*{problem}"):
        play(tmp_path, document)
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline.yaml"]


@pytest.mark.parametrize(
    "document", [{}, {"platforms": {}}, {"platforms": {"kubernetes": {"deploymentSpec": {}}}}]
)
def test_a_second_document_may_be_empty(document, tmp_path):
    assert len(read_compiled(write(tmp_path, pipeline(), document)).tasks) == 2


def test_what_is_null_is_not_there(tmp_path):
    document = pipeline()
    document["root"]["dag"]["tasks"]["a_second"]["cachingOptions"] = None
    document["components"]["z_first"]["inputDefinitions"] = None
    assert len(play(tmp_path, document)) == 2


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
