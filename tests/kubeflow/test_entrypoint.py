"""kubeflow/entrypoint.py: what an executor is given, and what the launcher gets back."""

import argparse
import json
import logging
import subprocess
import sys
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from kubeflow import data_driver
from kubeflow.entrypoint import add_types, run_task
from kubeflow.mirror import Mirror
from tests.bucket_filesystem import BucketFileSystem

ROOT = Path(__file__).parent.parent.parent
RUN = "testbucket://artifacts/run"
MODEL = {"instanceSchema": "title: tfx.Model\ntype: object\n"}
EXAMPLES = {
    "instanceSchema": "title: tfx.Examples\ntype: object\nproperties:\n"
    "  span: {type: integer}\n  version: {type: integer}\n  split_names: {type: string}\n"
}


@pytest.fixture
def mirror(tmp_path, bucket) -> Mirror:
    return Mirror(str(tmp_path / "pod"))


def run(
    mirror: Mirror,
    folder: Path,
    parameters: dict[str, Any],
    metadata: dict[str, Any] | None = None,
    driver: str | None = None,
) -> dict[str, Any]:
    """Runs a task that makes a model of a model, or examples of data, and returns its output."""
    output = {"uri": f"{RUN}/Task/1/out", "type": EXAMPLES if driver else MODEL, "metadata": {}}
    task: dict[str, Any] = {
        "inputs": {"parameterValues": parameters},
        "outputs": {
            "artifacts": {"examples" if driver else "model": {"artifacts": [output]}},
            "outputFile": str(folder / "kfp" / "output.json"),
        },
    }
    spec: dict[str, Any] = {}
    if not driver:
        model = {"name": "12", "uri": f"{RUN}/Trainer/1/model", "metadata": metadata or {}}
        task["inputs"]["artifacts"] = {"candidate": {"artifacts": [model]}}
        spec["artifacts"] = {"candidate": {"artifactType": MODEL}}
    options = argparse.Namespace(
        executor_class_path="tests.small_executors.Recorder",
        json_serialized_invocation_args=json.dumps(task),
        json_serialized_inputs_spec_args=json.dumps(spec),
        driver_class_path=driver,
        keep_gs_uris=False,
    )
    run_task(options, [], mirror)
    (written,) = json.loads((folder / "kfp" / "output.json").read_text())["artifacts"].values()
    (artifact,) = written["artifacts"]
    return artifact


def seen(mirror: Mirror) -> dict[str, Any]:
    """What the executor wrote down."""
    return json.loads(Path(mirror.to_path(f"{RUN}/Task/1/out"), "seen.json").read_text())


def test_inputs_get_their_types_and_a_name_where_they_have_none():
    task = {
        "inputs": {
            "artifacts": {
                "model": {"artifacts": [{"uri": "s3://b/m", "name": "5"}]},
                "examples": {"artifacts": [{"uri": "s3://b/e"}]},
            }
        }
    }
    spec = {"artifacts": {"model": {"artifactType": MODEL}, "examples": {"artifactType": EXAMPLES}}}
    add_types(task, spec)
    assert task["inputs"]["artifacts"] == {
        "model": {"artifacts": [{"uri": "s3://b/m", "name": "5", "type": MODEL}]},
        "examples": {"artifacts": [{"uri": "s3://b/e", "name": "s3://b/e", "type": EXAMPLES}]},
    }


def test_the_executor_gets_paths_and_the_launcher_uris(mirror, tmp_path):
    artifact = run(mirror, tmp_path, {"seconds": 3.0, "where": "package:data/schema.pbtxt"})
    pod = f"{mirror.root}/testbucket/artifacts/run"
    assert seen(mirror)["inputs"] == {"candidate": [["Model", f"{pod}/Trainer/1/model"]]}
    assert seen(mirror)["properties"] == {
        "seconds": 3,
        "where": str(ROOT / "data" / "schema.pbtxt"),
    }
    assert artifact["uri"] == f"{RUN}/Task/1/out"
    assert artifact["metadata"]["pushed_destination"] == f"{RUN}/Task/1/out/7"
    assert artifact["metadata"]["blessed"] == 1
    assert "unset" not in artifact["metadata"]  # which TFX writes as null


@pytest.mark.parametrize("keeps", [False, True])
def test_where_beams_workers_are_elsewhere_the_executor_gets_gs_uris(keeps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = {"artifacts": {"candidate": {"artifactType": MODEL}}}
    output = {"uri": "gs://b/out", "type": MODEL}
    task = {
        "inputs": {"artifacts": {"candidate": {"artifacts": [{"uri": "gs://b/in", "name": "1"}]}}},
        "outputs": {
            "artifacts": {"model": {"artifacts": [output]}},
            "outputFile": str(tmp_path / "output.json"),
        },
    }
    options = argparse.Namespace(
        executor_class_path="tests.small_executors.Teller",
        json_serialized_invocation_args=json.dumps(task),
        json_serialized_inputs_spec_args=json.dumps(spec),
        driver_class_path=None,
        keep_gs_uris=keeps,
    )
    given = dict(vars(options))
    run_task(options, [], Mirror(str(tmp_path / "pod")))
    assert vars(options) == given
    (artifact,) = json.loads((tmp_path / "output.json").read_text())["artifacts"]["model"][
        "artifacts"
    ]
    # In the launcher's eyes it is the same.
    assert (artifact["uri"], (tmp_path / "pod/gcs/b/out").exists()) == ("gs://b/out", not keeps)
    assert not list(tmp_path.glob("gs*"))
    here = "gs://b" if keeps else f"{tmp_path}/pod/gcs/b"
    assert artifact["metadata"]["places"] == f"at {here}/out {here}/in"


def test_the_datas_version_goes_from_input_to_output_and_in_the_end_beside_the_model(
    mirror, bucket, tmp_path
):
    destination = {"push_destination": '{"filesystem": {"base_directory": "testbucket://m/tiny"}}'}
    artifact = run(mirror, tmp_path, destination, {"data_version": "seventh"})
    assert artifact["metadata"]["data_version"] == "seventh"
    assert bucket.files == {"testbucket://m/tiny/last_data.json": b"seventh"}


def test_without_new_data_a_task_does_nothing_and_says_so(mirror, tmp_path, caplog):
    properties = {"data_version": "seventh", "no_new_data": "true"}
    with caplog.at_level(logging.WARNING):
        artifact = run(mirror, tmp_path, {"seconds": 3.0}, properties)
    assert artifact == {"uri": f"{RUN}/Task/1/out", "metadata": properties}
    folder = Path(mirror.to_path(artifact["uri"]))
    assert [path.name for path in folder.iterdir()] == ["no_new_data"]
    assert "no new data since the last run" in caplog.text


# ---- The example generator ----

DATA, SERVING = "testbucket://data/texts", "testbucket://models/tiny"


def generate(mirror: Mirror, folder: Path, eval_spans: int = 0, **changes: Any) -> dict[str, Any]:
    """Runs the generator's driver and a recorder in place of its executor."""
    struct = "type.googleapis.com/google.protobuf.Struct"
    settings = {"@type": struct, "value": {"eval_spans": eval_spans}}
    parameters = {
        "input_base": DATA,
        "input_config": '{"splits": [{"name": "corpus", "pattern": "span-{SPAN}/*"}]}',
        "custom_config": json.dumps({"custom_config": settings}),
        "serving_folder": SERVING,
        "pipeline_digest": "abc",
        "skip_without_new_data": True,
        "span": -1.0,
        "training_steps": 60.0,
        "max_perplexity": 500.0,
    }
    driver = "components.example_gen.Driver"
    return run(mirror, folder, parameters | changes, driver=driver)


def put_spans(bucket: type[BucketFileSystem]) -> None:
    for span in (2, 9, 10):
        for name in "ab":
            bucket.put(f"{DATA}/span-{span}/{name}.txt", f"{span}{name}".encode(), 1_600_000_000)


def test_of_a_buckets_spans_the_newest_is_found_and_only_that_is_read(mirror, bucket, tmp_path):
    put_spans(bucket)
    artifact = generate(mirror, tmp_path)
    assert artifact["metadata"]["span"] == 10
    assert "num_files:2,total_bytes:6" in artifact["metadata"]["input_fingerprint"]
    properties = seen(mirror)["properties"]
    assert json.loads(properties["input_config"])["splits"][0]["pattern"] == "span-10/*"
    assert properties["input_base"] == mirror.to_path(DATA)
    ours = {"serving_folder", "pipeline_digest", "skip_without_new_data", "training_steps"}
    assert not (ours | {"max_perplexity"}) & set(properties)
    assert seen(mirror)["data"] == {"span-10/a.txt": "10a", "span-10/b.txt": "10b"}
    assert bucket.read() == [f"{DATA}/span-10/a.txt", f"{DATA}/span-10/b.txt"]


def test_of_earlier_spans_those_are_read_that_are_evaluated_on(mirror, bucket, tmp_path):
    put_spans(bucket)
    bucket.put(f"{DATA}/readme.txt", b"no data")
    generate(mirror, tmp_path, eval_spans=1)
    assert {Path(uri).parent.name for uri in bucket.read()} == {"span-10", "span-9"}
    assert set(seen(mirror)["data"].values()) == {"10a", "10b", "9a", "9b"}


def test_a_run_can_ask_for_another_span(mirror, bucket, tmp_path):
    put_spans(bucket)
    assert generate(mirror, tmp_path, span=9.0)["metadata"]["span"] == 9
    assert seen(mirror)["data"] == {"span-9/a.txt": "9a", "span-9/b.txt": "9b"}


def test_a_corpus_that_we_know_is_fetched_to_the_workspace_first(bucket, tmp_path, monkeypatch):
    def fetch(corpus: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "play.txt").write_text(f"{corpus}'s text")

    monkeypatch.setattr(data_driver, "prepare", fetch)
    mirror = Mirror(str(tmp_path / "pod"), is_all=True)
    splits = '{"splits": [{"name": "corpus", "pattern": "*"}]}'
    data = "/workspace/data/shakespeare"
    generate(mirror, tmp_path, input_base=data, input_config=splits, serving_folder="/workspace/s")
    assert seen(mirror)["properties"]["input_base"] == f"{mirror.root}{data}"
    assert seen(mirror)["data"] == {"play.txt": "shakespeare's text"}


def test_an_empty_data_folder_is_an_error(mirror, tmp_path):
    with pytest.raises(ValueError, match=f"^data_root '{DATA}' holds no files$"):
        generate(mirror, tmp_path)


@pytest.mark.parametrize(
    ("changes", "is_skipped"),
    [
        ({}, True),
        ({"skip_without_new_data": False}, False),
        ({"pipeline_digest": "changed"}, False),
        ({"span": 9.0}, False),
        ({"training_steps": 100.0}, False),
        ({"max_perplexity": 400.0}, False),
        ({"max_perplexity": 500}, True),
    ],
)
def test_the_second_run_on_the_same_data_ends_early_unless_something_else_is_new(
    mirror, bucket, tmp_path, changes, is_skipped
):
    put_spans(bucket)
    version = generate(mirror, tmp_path / "1")["metadata"]["data_version"]
    bucket.put(f"{SERVING}/last_data.json", version.encode())
    # In another pod, where the files have just been copied.
    second = generate(Mirror(str(tmp_path / "other")), tmp_path / "2", **changes)
    assert ("no_new_data" in second["metadata"]) == is_skipped


def test_with_a_file_added_the_run_goes_on(mirror, bucket, tmp_path):
    put_spans(bucket)
    version = generate(mirror, tmp_path / "1")["metadata"]["data_version"]
    bucket.put(f"{SERVING}/last_data.json", version.encode())
    bucket.put(f"{DATA}/span-10/c.txt", b"new", 1_600_000_000)
    second = generate(Mirror(str(tmp_path / "other")), tmp_path / "2")
    assert "no_new_data" not in second["metadata"]


# ---- The command ----


@pytest.mark.parametrize("init", [[], ["__init__.py"]])
def test_the_command_is_found_whether_or_not_pypis_package_is_installed_beside(init, tmp_path):
    copytree(ROOT / "kubeflow", tmp_path / "kubeflow")
    for name in init:
        (tmp_path / "kubeflow" / name).touch()
    found = subprocess.run(
        [sys.executable, "-m", "kubeflow.entrypoint", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--executor_class_path" in found.stdout
