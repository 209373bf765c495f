"""kubeflow/runner.py: the YAML file, read as the backend and kfp's own client read it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import components
from kfp.pipeline_spec import pipeline_spec_pb2

from components.training_job_spec import TrainingJobSpec
from kubeflow import runner
from kubeflow.compiled import read_compiled
from kubeflow.pipeline_file import parameter_values, read_pipeline_file
from kubeflow.runner import compile_pipeline, write_pipeline
from pipeline import cli
from pipeline.config_file import known_configs, load_config
from tests.compiled_tiny import (
    IMAGE,
    ROOT,
    TASKS,
    compile_tiny,
    container_of,
    parameter_of,
    tasks_of,
)

FLINK = "{runner: FlinkRunner, job_endpoint: 'flink:8099', environment_type: DOCKER, image: 'a:1'}"
LOOPBACK = "{runner: FlinkRunner, job_endpoint: 'localhost:8099', environment_type: LOOPBACK}"


@pytest.fixture(scope="module")
def tiny() -> dict[str, Any]:
    return compile_tiny()[0]


@pytest.mark.parametrize("name", known_configs())
def test_every_configuration_compiles_to_what_kfp_and_its_schema_know(name, tmp_path):
    path = tmp_path / "deep" / "pipeline.yaml"
    write_pipeline(compile_pipeline(load_config(name), IMAGE, ROOT), path)
    assert [file.name for file in path.parent.iterdir()] == ["pipeline.yaml"]
    text = path.read_text()
    pipeline, platform = yaml.safe_load_all(text)
    # Unknown fields are errors to both.
    json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(pipeline["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    read = components.load_component_from_text(text)
    assert read.pipeline_spec.pipeline_info.name == name
    assert read.pipeline_spec.schema_version == "2.1.0"
    assert (pipeline["defaultPipelineRoot"], set(tasks_of(pipeline))) == (ROOT, TASKS)
    # References of YAML's own, which not every reader resolves.
    assert not re.search(r"[&*]id\d", text)


def test_each_task_is_a_container_of_our_image_with_our_command_before_tfxs_arguments(tiny):
    executors = tiny["deploymentSpec"]["executors"]
    assert len(executors) == len(TASKS)
    assert [set(executor) for executor in executors.values()] == [{"container"}] * len(TASKS)
    for task in TASKS:
        container = container_of(tiny, task)
        assert container["image"] == IMAGE
        assert container["command"] == ["python", "-m", "kubeflow.entrypoint"]
        assert container["args"][:1] == ["--executor_class_path"]
        assert container["args"][2:4] == ["--json_serialized_invocation_args", "{{$}}"]


def test_nothing_in_the_file_points_to_this_machine(tiny):
    here = str(Path(__file__).parent.parent.parent)
    assert here not in json.dumps(tiny)
    assert "output/" not in json.dumps(tiny)
    schema = Path(__file__).parent.parent.parent / "data" / "schema.pbtxt"
    assert parameter_of(tiny, "ImportSchemaGen", "text") == schema.read_text()


def test_the_generator_runs_anew_each_time_with_its_driver_and_the_others_are_cached(tiny):
    caching = {name: task["cachingOptions"]["enableCache"] for name, task in tasks_of(tiny).items()}
    assert caching == {name: name != "CorpusExampleGen" for name in TASKS}
    container = container_of(tiny, "CorpusExampleGen")
    assert container["args"][-2:] == ["--driver_class_path", "components.example_gen.Driver"]
    assert "lifecycle" not in container
    for task in TASKS - {"CorpusExampleGen"}:
        assert "--driver_class_path" not in container_of(tiny, task)["args"]


def test_a_runs_parameters_have_the_configurations_values_as_defaults(tiny):
    parameters = tiny["root"]["inputDefinitions"]["parameters"]
    assert parameters == {
        "data_root": {"parameterType": "STRING", "defaultValue": "package:data/sample"},
        "span": {"parameterType": "NUMBER_INTEGER", "defaultValue": -1},
        "skip_without_new_data": {"parameterType": "BOOLEAN", "defaultValue": True},
        "training_steps": {"parameterType": "NUMBER_INTEGER", "defaultValue": 60},
        "max_perplexity": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 5000},
        "min_improvement": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0},
    }
    taken = {
        (name, source["componentInputParameter"]): parameter
        for name, task in tasks_of(tiny).items()
        for parameter, source in task["inputs"].get("parameters", {}).items()
        if "componentInputParameter" in source
    }
    assert taken == {
        ("CorpusExampleGen", "data_root"): "input_base",
        ("CorpusExampleGen", "span"): "span",
        ("CorpusExampleGen", "skip_without_new_data"): "skip_without_new_data",
        ("CorpusExampleGen", "training_steps"): "training_steps",
        ("CorpusExampleGen", "max_perplexity"): "max_perplexity",
        ("CorpusExampleGen", "min_improvement"): "min_improvement",
        ("Trainer", "training_steps"): "training_steps",
        ("Evaluator", "max_perplexity"): "max_perplexity",
        ("Evaluator", "min_improvement"): "min_improvement",
    }


def test_what_may_be_forgotten_is_a_runs_parameter_where_there_are_spans():
    pipeline, _ = compile_tiny(
        "data={path: s3://bucket/texts, spans: true}", "evaluation.max_forgetting=0.2"
    )
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    assert parameters["max_forgetting"] == {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.2}
    for task in ("Evaluator", "CorpusExampleGen"):
        source = tasks_of(pipeline)[task]["inputs"]["parameters"]["max_forgetting"]
        assert source == {"componentInputParameter": "max_forgetting"}


def test_a_task_declares_every_parameter_that_it_is_given(tiny):
    for name, task in tasks_of(tiny).items():
        declared = tiny["components"][name]["inputDefinitions"].get("parameters", {})
        assert set(declared) == set(task["inputs"].get("parameters", {}))


@pytest.mark.parametrize(
    ("overrides", "serving"),
    [
        ([], "s3://bucket/pipelines/serving/tiny"),
        (["kubeflow.volume=claim"], "/workspace/serving/tiny"),
        (["kubeflow.volume=claim", "kubeflow.serving_folder=gs://models/x/"], "gs://models/x/tiny"),
        (["model_name=other"], "s3://bucket/pipelines/serving/other"),
    ],
)
def test_models_are_pushed_to_where_they_outlive_their_pod(overrides, serving):
    pipeline, _ = compile_tiny(*overrides)
    assert parameter_of(pipeline, "BaselineModel", "serving_folder") == serving
    pushed = json.loads(parameter_of(pipeline, "Pusher", "push_destination"))
    assert pushed == {"filesystem": {"base_directory": serving}}
    trainer = json.loads(parameter_of(pipeline, "Trainer", "custom_config"))
    assert (trainer["serving_folder"], trainer["checkpoints"]) == (
        serving,
        "/workspace/checkpoints",
    )


def test_beams_workers_elsewhere_read_and_write_the_bucket_itself(tiny):
    config = load_config("tiny", ["data={path: gs://bucket/texts}", f"beam={FLINK}"])
    pipeline, _ = compile_pipeline(config, IMAGE, "gs://bucket/pipelines")
    on_beam = {"CorpusExampleGen", "StatisticsGen", "Transform", "Evaluator"}
    for compiled, expected in ((pipeline, on_beam), (tiny, set())):
        keeping = {
            task for task in TASKS if "--keep_gs_uris" in container_of(compiled, task)["args"]
        }
        assert keeping == expected


@pytest.mark.parametrize(
    ("given", "there"),
    [
        ("my/files", "/workspace/my/files"),
        ("files", "/workspace/files"),
        ("/mnt/files", "/mnt/files"),
        ("s3://bucket/files", "s3://bucket/files"),
    ],
)
def test_paths_begin_where_the_volume_is_mounted(given, there):
    pipeline, _ = compile_tiny(f"data={{path: '{given}'}}", f"start={given}")
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    assert parameters["data_root"]["defaultValue"] == there
    assert json.loads(parameter_of(pipeline, "Trainer", "custom_config"))["start"] == there


MULTI_WORKER = "training.strategy={name: multi_worker, device: cpu}"


def test_the_trainer_is_told_of_the_pods_that_train_in_place_of_its_own(tiny):
    pipeline, _ = compile_tiny(
        MULTI_WORKER,
        "kubeflow.volume=claim",
        "kubeflow.environment={COLOUR: blue}",
        "kubeflow.training_job={workers: 4, memory: 3Gi}",
    )
    settings = json.loads(parameter_of(pipeline, "Trainer", "custom_config"))
    spec = TrainingJobSpec(
        image=IMAGE,
        volume="claim",
        mount_path="/workspace",
        workers=4,
        memory="3Gi",
        environment={"COLOUR": "blue"},
    )
    assert TrainingJobSpec(**settings["job"]) == spec
    assert settings["checkpoints"] == "/workspace/checkpoints"
    assert "job" not in json.loads(parameter_of(tiny, "Trainer", "custom_config"))


def test_another_configuration_has_another_digest_and_the_same_one_the_same(tiny):
    def digest(pipeline: dict[str, Any]) -> str:
        return parameter_of(pipeline, "CorpusExampleGen", "pipeline_digest")

    assert digest(compile_tiny()[0]) == digest(tiny)
    assert digest(compile_tiny("training.learning_rate=0.02")[0]) != digest(tiny)


def test_what_would_start_pods_is_not_simulated_and_the_error_says_what_to_compile(tmp_path):
    path = tmp_path / "pipeline.yaml"
    overrides = [MULTI_WORKER, "kubeflow={volume: claim, training_job: {workers: 4}}"]
    write_pipeline(compile_pipeline(load_config("tiny", overrides), IMAGE, ROOT), path)
    with pytest.raises(ValueError, match=r"task Trainer: .*custom_config: job is not kn") as error:
        read_compiled(path)
    overrides += re.findall(r"--set (\S+=\w+)", str(error.value))
    write_pipeline(compile_pipeline(load_config("tiny", overrides), IMAGE, ROOT), path)
    assert {task.name for task in read_compiled(path).tasks} == TASKS


@pytest.mark.parametrize(
    ("image", "root", "overrides", "problem"),
    [
        ("gpt2-tfx", ROOT, [], "image must be an image with a tag or digest"),
        ("host:5000/gpt2-tfx", ROOT, [], "image must be .* got 'host:5000/gpt2-tfx'"),
        ("Team/gpt2 tfx:1", ROOT, [], "image must be .* got 'Team/gpt2 tfx:1'"),
        ("gpt2-tfx@sha256:12", ROOT, [], "image must be .* got 'gpt2-tfx@sha256:12'"),
        (IMAGE, "/pipelines", [], "pipeline root must be gs://BUCKET/.* got '/pipelines'"),
        (IMAGE, "hdfs://bucket/x", [], "pipeline root must be gs://BUCKET/.*, s3://BUCKET/"),
        (IMAGE, "s3://", [], "pipeline root must be .* got 's3://'"),
        (IMAGE, "s3:///x", [], "pipeline root must be .* got 's3:///x'"),
        (
            IMAGE,
            ROOT,
            ["training.strategy={name: mirrored, num_devices: 2}"],
            "kubeflow.resources: Trainer.accelerators must be >= 2, .* got 0",
        ),
        (
            IMAGE,
            ROOT,
            ["training.strategy={name: multi_worker, device: cpu}"],
            "kubeflow.training_job must be given where training.strategy.name is 'multi_worker'",
        ),
        (IMAGE, ROOT, ["name=My_Run"], "name must be lower-case letters, .* got 'My_Run'"),
        (IMAGE, ROOT, ["evaluation.max_perplexity=.inf"], "max_perplexity must be finite on Kubef"),
        (IMAGE, ROOT, ["serving.infra_validator=true"], "serving.infra_validator must be false"),
        (IMAGE, ROOT, [f"beam={FLINK}"], f"pipeline root must be a gs:// folder.* got '{ROOT}'"),
        (
            IMAGE,
            "gs://bucket/x",
            ["data={corpus: shakespeare}", f"beam={FLINK}"],
            "data.path must be a gs:// folder.* got '/workspace/data/shakespeare'",
        ),
        *(
            (IMAGE, ROOT, [override.format(uri)], f"^{field} must be gs://BUCKET/.* got '{uri}'$")
            for field, override in (("data.path", "data={{path: '{}'}}"), ("start", "start={}"))
            for uri in ("hdfs://nn/texts", "abfs://f@a/x", "S3://bucket/x", "s3://UPPER/x")
        ),
        (IMAGE, ROOT, [f"beam={LOOPBACK}"], "beam.environment_type must not be LOOPBACK on"),
        (
            IMAGE,
            ROOT,
            ["kubeflow.resources.Trainr={cpu: 2}"],
            "kubeflow.resources: 'Trainr' must be one of default, CorpusExampleGen, ",
        ),
    ],
)
def test_what_cannot_run_on_kubeflow_is_an_error(image, root, overrides, problem):
    with pytest.raises(ValueError, match=problem):
        compile_pipeline(load_config("tiny", overrides), image, root)


@pytest.mark.parametrize(
    "image",
    ["gpt2-tfx:1", "host:5000/a/b_c:v1.0-x", f"ghcr.io/a/b@sha256:{'0a' * 32}", "a:latest"],
)
def test_an_image_with_a_tag_or_digest_is_taken(image):
    assert container_of(compile_pipeline(load_config("tiny"), image, ROOT)[0], "Pusher")[
        "image"
    ] == (image)


def test_after_an_error_the_file_is_what_it_was(tmp_path, capsys):
    path = tmp_path / "pipeline.yaml"
    path.write_text("before")
    arguments = ["kubeflow", "compile", "--config=tiny", "--image=gpt2-tfx", f"--output={path}"]
    assert cli.main([*arguments, f"--pipeline-root={ROOT}"]) == 1
    assert capsys.readouterr().err.startswith("error: image must be ")
    with pytest.raises(yaml.YAMLError):
        write_pipeline([{"a": "b"}, runner], path)  # the second is nothing that YAML can say
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["pipeline.yaml"]


def test_so_few_steps_that_the_warm_up_does_not_fit_are_refused_before_a_run(tmp_path):
    file = tmp_path / "tiny.yaml"
    write_pipeline(compile_pipeline(load_config("tiny"), IMAGE, ROOT), file)
    pipeline = read_pipeline_file(str(file))
    assert parameter_values(pipeline, ["training_steps=6"]) == {"training_steps": 6}
    message = r"^parameter warmup_steps must be in \[0, steps=5\), got 5$"
    with pytest.raises(ValueError, match=message):
        parameter_values(pipeline, ["training_steps=5"])
    # What another version of ours compiled has rules of its own, which its image knows.
    file.write_text(file.read_text().replace('"warmup_steps"', '"warmup_updates"'))
    pipeline = read_pipeline_file(str(file))
    assert parameter_values(pipeline, ["training_steps=5"]) == {"training_steps": 5}
