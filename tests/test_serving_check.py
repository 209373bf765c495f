"""components/serving_check.py and serving/check.py: what is blessed, and what is wrong if not."""

import json
import shutil
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tfx.types import standard_artifacts

from components.code_version import code_digest
from components.serving_check import ServingCheck
from model.export import export_gpt2
from model.served import ServedGPT2
from model.warm_up import write_warm_up
from pipeline.config_file import load_config
from pipeline.graph import create_pipeline
from serving.check import check_model
from tests.small_models import random_gpt2


@pytest.fixture(scope="module")
def model():
    return random_gpt2(vocab_size=50257, max_length=16, embedding_dim=6, num_heads=2)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "Format-Serving"
    export_gpt2(model, path, stride=8, warm_up_prompts=["a"])
    return path


def test_nothing_is_wrong_with_a_model_that_was_exported_here(folder):
    assert list(check_model(folder)) == []


def test_a_model_that_cannot_be_loaded_is_wrong(folder, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes((folder / "saved_model.pb").read_bytes()[:1000])
    (trouble,) = check_model(tmp_path)
    assert trouble.startswith("the server cannot load it: ")


def test_a_warm_up_that_fails_is_wrong(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "copied")
    write_warm_up(copied, ["a word " * 20], new_tokens=1)
    (trouble,) = check_model(copied)
    assert "exceed the context of 16 tokens" in trouble


def test_wrong_answers_are_wrong(model, tmp_path):
    def forgetful(texts: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.size(texts)
        return {"ids": tf.zeros([rows, 1], tf.int32), "lengths": tf.ones([rows], tf.int32)}

    def generous(ids: tf.Tensor, lengths: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"texts": tf.fill([tf.size(lengths)], "anything")}

    served = ServedGPT2(model, stride=8)
    served.encode, served.decode = forgetful, generous  # type: ignore[method-assign]
    tf.saved_model.save(served, str(tmp_path), signatures=served.signatures())
    troubles = list(check_model(tmp_path))
    assert "encode and decode: expected 'To be', got b'anything'" in troubles
    assert "an id beyond the vocabulary: expected INVALID_ARGUMENT, got OK" in troubles


def run_component(
    tmp_path: Path, model_uri: Path, seconds: int = 300, infra_validator: bool | None = None
) -> standard_artifacts.InfraBlessing:
    """Runs the component as its launcher does, and returns its blessing."""
    candidate, blessing = standard_artifacts.Model(), standard_artifacts.InfraBlessing()
    candidate.uri, blessing.uri = str(model_uri), str(tmp_path / "blessing")
    Path(blessing.uri).mkdir()
    inputs: dict[str, list] = {"model": [candidate]}
    if infra_validator is not None:
        validated = standard_artifacts.InfraBlessing()
        validated.set_int_custom_property("blessed", int(infra_validator))
        inputs["infra_blessing"] = [validated]
    ServingCheck.EXECUTOR_SPEC.executor_class().Do(
        inputs, {"blessing": [blessing]}, {"seconds": seconds, "code": ""}
    )
    return blessing


def found(blessing: standard_artifacts.InfraBlessing) -> tuple[int, str, list[str]]:
    folder = Path(blessing.uri)
    files = sorted(path.name for path in folder.iterdir())
    report = (folder / "serving_check.txt").read_text()
    return blessing.get_int_custom_property("blessed"), report, files


def test_a_model_that_can_be_served_is_blessed(folder, tmp_path):
    assert found(run_component(tmp_path, folder.parent, infra_validator=True)) == (
        1,
        "it can be served",
        ["INFRA_BLESSED", "serving_check.txt"],
    )


def test_a_model_that_cannot_be_served_is_not_blessed_and_the_report_says_why(tmp_path):
    broken = tmp_path / "model" / "Format-Serving"
    broken.mkdir(parents=True)
    (broken / "saved_model.pb").write_text("no model")
    blessed, report, files = found(run_component(tmp_path, broken.parent))
    assert (blessed, files) == (0, ["INFRA_NOT_BLESSED", "serving_check.txt"])
    assert report.startswith("the server cannot load it: ")


def test_a_check_that_takes_too_long_says_nothing_about_the_model(folder, tmp_path):
    with pytest.raises(RuntimeError, match=r"^serving\.check took more than 0 seconds$"):
        run_component(tmp_path, folder.parent, seconds=0)
    assert not list((tmp_path / "blessing").iterdir())


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -9 $$", "exit status -9: "),
        ("echo so far so good; echo Killed >&2; exit 137", "exit status 137: Killed"),
        ("echo ImportError: serving >&2; exit 1", "exit status 1: ImportError: serving"),
    ],
)
def test_a_check_that_breaks_off_says_nothing_about_the_model(
    folder, tmp_path, monkeypatch, script, message
):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(RuntimeError, match=f"^serving.check ended with {message}$"):
        run_component(tmp_path, folder.parent)
    assert not list((tmp_path / "blessing").iterdir())


def test_another_serving_code_is_another_check(tmp_path, monkeypatch):
    packages = {name: tmp_path / name for name in ("model", "components", "serving")}
    for folder in packages.values():
        folder.mkdir()
    monkeypatch.setattr(resources, "files", packages.__getitem__)
    before = code_digest(), code_digest("serving")
    (packages["serving"] / "check.py").write_text("changed")
    after = code_digest(), code_digest("serving")
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_without_infra_validators_blessing_where_it_runs_there_is_none(folder, tmp_path):
    blessed, report, _ = found(run_component(tmp_path, folder.parent, infra_validator=False))
    assert (blessed, report) == (0, "InfraValidator has not blessed it")


def test_infra_validator_is_switched_on_by_configuration():
    def components(overrides: list[str]) -> dict[str, Any]:
        pipeline = create_pipeline(load_config("tiny", overrides))
        return {component.id: component for component in pipeline.components}

    plain, validated = components([]), components(["serving.infra_validator=true"])
    assert validated.keys() - plain.keys() == {"InfraValidator"}
    checked = validated["ServingCheck"].inputs["infra_blessing"]
    assert checked == validated["InfraValidator"].outputs["blessing"]
    for graph in (plain, validated):
        assert graph["Pusher"].inputs["infra_blessing"] == graph["ServingCheck"].outputs["blessing"]
    spec = json.loads(validated["InfraValidator"].exec_properties["serving_spec"])
    assert spec["tensorflow_serving"]["tags"] == ["2.19.1"]
