"""pipeline/beam_config.py: what each engine needs, and what Beam and TFX make of it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner
from apache_beam.runners.portability.flink_runner import FlinkRunner
from apache_beam.runners.portability.spark_runner import SparkRunner
from apache_beam.runners.runner import create_runner
from apache_beam.transforms.environments import Environment
from tfx.utils.dependency_utils import make_beam_dependency_flags

from pipeline.beam_config import BeamConfig
from pipeline.config_file import load_config

ENGINES = Path(__file__).parent.parent / "kubeflow" / "engines"
IMAGE = "registry.example.com:5000/gpt2-tfx:0.1.0"

DIRECT: dict[str, Any] = {"running_mode": "multi_processing", "workers": 4}
PORTABLE: dict[str, Any] = {
    "runner": "PortableRunner",
    "job_endpoint": "localhost:8099",
    "environment_type": "LOOPBACK",
}
FLINK: dict[str, Any] = {
    "runner": "FlinkRunner",
    "job_endpoint": "flink:8099",
    "workers": 8,
    "environment_type": "EXTERNAL",
    "environment_config": "localhost:50000",
}
FLINK_REST: dict[str, Any] = {
    "runner": "FlinkRunner",
    "master": "http://flink:8081",
    "environment_type": "PROCESS",
    "environment_config": "/opt/apache/beam/boot",
}
SPARK: dict[str, Any] = {
    "runner": "SparkRunner",
    "job_endpoint": "spark:8099",
    "environment_type": "DOCKER",
    "image": IMAGE,
}
SPARK_REST: dict[str, Any] = SPARK | {"job_endpoint": None, "master": "http://spark:6066"}
DATAFLOW: dict[str, Any] = {
    "runner": "DataflowRunner",
    "project": "my-project",
    "region": "europe-west4",
    "temp_location": "gs://bucket/temp",
    "image": IMAGE,
    "workers": 8,
}
ALL = {
    "direct": DIRECT,
    "portable": PORTABLE,
    "flink": FLINK,
    "flink by REST": FLINK_REST,
    "spark": SPARK,
    "spark by REST": SPARK_REST,
    "dataflow": DATAFLOW,
}


def parse(fields: dict[str, Any]) -> dict[str, Any]:
    """What Beam reads from our arguments, without what it would read from none."""
    options = PipelineOptions(BeamConfig(**fields).arguments())
    return options.get_all_options(drop_default=True)


@pytest.mark.parametrize("name", ALL)
def test_beam_knows_every_argument_and_the_runner(name):
    arguments = BeamConfig(**ALL[name]).arguments()
    assert PipelineOptions(arguments).get_all_options(retain_unknown_options=True) == (
        PipelineOptions(arguments).get_all_options()
    )
    runner = ALL[name].get("runner", "DirectRunner")
    assert type(create_runner(parse(ALL[name])["runner"])).__name__ == runner


@pytest.mark.parametrize("name", ALL)
def test_tfx_does_not_pack_itself_for_the_workers(name):
    arguments = BeamConfig(**ALL[name]).arguments()
    assert make_beam_dependency_flags(arguments) == arguments


def test_only_the_direct_runner_gets_its_own_options():
    runner = "components.direct_runner.DirectRunner"
    assert parse({}) == {"runner": runner, "sdk_container_image": "none"}
    assert parse(DIRECT) == {
        "runner": runner,
        "direct_running_mode": "multi_processing",
        "direct_num_workers": 4,
        "sdk_container_image": "none",
    }
    for name in set(ALL) - {"direct"}:
        assert not any("direct" in argument for argument in BeamConfig(**ALL[name]).arguments())


def test_a_job_server_is_told_where_workers_run_our_code():
    assert parse(FLINK) == {
        "runner": "FlinkRunner",
        "job_endpoint": "flink:8099",
        "parallelism": 8,
        "environment_type": "EXTERNAL",
        "environment_config": "localhost:50000",
        "sdk_container_image": "none",
        "experiments": ["disable_logging_submission_environment"],
    }
    assert parse(SPARK) == {
        "runner": "SparkRunner",
        "job_endpoint": "spark:8099",
        "environment_type": "DOCKER",
        "environment_config": IMAGE,
        "sdk_container_image": IMAGE,
        "experiments": ["disable_logging_submission_environment"],
    }


def environment(fields: dict[str, Any]) -> Environment:
    options = PipelineOptions(BeamConfig(**fields).arguments())
    return Environment.from_options(options.view_as(PortableOptions))


def test_beam_makes_the_environment_that_was_meant_and_ships_no_file():
    assert environment(SPARK).container_image == IMAGE
    assert environment(FLINK).url == "localhost:50000"
    assert environment(FLINK_REST).command == "/opt/apache/beam/boot"
    assert type(environment(PORTABLE)).__name__ == "PythonLoopbackEnvironment"
    for fields in (SPARK, FLINK, FLINK_REST, PORTABLE):
        assert environment(fields).artifacts() == []


def test_without_a_job_server_beam_uploads_to_the_clusters_rest_service():
    def server(runner: Any, fields: dict[str, Any]) -> Any:
        return runner.default_job_server(PipelineOptions(BeamConfig(**fields).arguments()))

    flink, spark = server(FlinkRunner(), FLINK_REST), server(SparkRunner(), SPARK_REST)
    assert (type(flink).__name__, flink._master_url) == (
        "FlinkUberJarJobServer",
        "http://flink:8081",
    )
    assert (type(spark).__name__, spark._rest_url) == ("SparkUberJarJobServer", "http://spark:6066")


def test_beam_finds_nothing_amiss_in_what_dataflow_is_given():
    assert parse(DATAFLOW) == {
        **{name: DATAFLOW[name] for name in ("runner", "project", "region", "temp_location")},
        "sdk_container_image": IMAGE,
        "max_num_workers": 8,
    }
    assert find_errors(BeamConfig(**DATAFLOW)) == []
    with_an_error = BeamConfig(**DATAFLOW, options=["--job_name=a_b"])
    assert len(find_errors(with_an_error)) == 1


def find_errors(config: BeamConfig) -> list[str]:
    """What Beam says of Dataflow's options; not of all, for that it would ask Google."""
    options = PipelineOptions(config.arguments()).view_as(GoogleCloudOptions)
    validator = PipelineOptionsValidator(options, DataflowRunner())
    return [
        *validator.validate_gcs_path(options, "temp_location"),
        *validator.validate_cloud_options(options),
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"workers": 0}, "workers must be >= 1, got 0"),
        (
            {"job_endpoint": "localhost:8099"},
            "job_endpoint must not be given for DirectRunner, which takes running_mode, workers; "
            "got 'localhost:8099'",
        ),
        (
            FLINK | {"running_mode": "multi_processing"},
            "running_mode must not be given for FlinkRunner, which takes workers, job_endpoint, "
            "master, environment_type, environment_config, image; got 'multi_processing'",
        ),
        (
            SPARK | {"workers": 2},
            "workers must not be given for SparkRunner, which takes job_endpoint, master, "
            "environment_type, environment_config, image; got 2",
        ),
        (
            PORTABLE | {"job_endpoint": None},
            "job_endpoint must be given for PortableRunner, got None",
        ),
        (
            FLINK | {"environment_type": None},
            "environment_type must be given for FlinkRunner, got None",
        ),
        (DATAFLOW | {"project": None}, "project must be given for DataflowRunner, got None"),
        (DATAFLOW | {"region": ""}, "region must be given for DataflowRunner, got ''"),
        (DATAFLOW | {"image": None}, "image must be given for DataflowRunner, got None"),
        (
            FLINK | {"master": "http://flink:8081"},
            "exactly one of job_endpoint and master must be given for FlinkRunner, got "
            "'flink:8099' and 'http://flink:8081'",
        ),
        (
            FLINK | {"job_endpoint": None},
            "exactly one of job_endpoint and master must be given for FlinkRunner, got None and "
            "None",
        ),
        (
            FLINK_REST | {"master": "flink:8081"},
            "master must be the address of Flink's REST service, like http://host:port, got "
            "'flink:8081'",
        ),
        (
            SPARK_REST | {"master": "spark://spark:7077"},
            "master must be the address of Spark's REST service, like http://host:port, got "
            "'spark://spark:7077'",
        ),
        (
            SPARK | {"image": None},
            "image must be given for environment_type DOCKER, got None",
        ),
        (
            SPARK | {"environment_config": IMAGE},
            f"environment_config must not be given for environment_type DOCKER, got {IMAGE!r}",
        ),
        (
            FLINK | {"environment_config": None},
            "environment_config must be given for environment_type EXTERNAL, got None",
        ),
        (
            FLINK | {"image": IMAGE},
            f"image must not be given for environment_type EXTERNAL, got {IMAGE!r}",
        ),
        (
            FLINK | {"environment_config": "localhost"},
            "environment_config must be host:port, got 'localhost'",
        ),
        (
            PORTABLE | {"job_endpoint": "flink:8099"},
            "environment_type LOOPBACK is for an engine on this machine, at one of localhost, "
            "127.0.0.1, ::1; got 'flink:8099'",
        ),
        (
            DATAFLOW | {"project": "123456"},
            "project must be a project's id, not its number or name, got '123456'",
        ),
        (
            DATAFLOW | {"temp_location": "/tmp"},
            "temp_location must be a folder like gs://bucket/folder, got '/tmp'",
        ),
        ({"options": ["-x"]}, "options must each begin with --, got '-x'"),
        (
            {"options": ["--runner=FlinkRunner"]},
            "options must not repeat what the other fields set: --direct_num_workers, "
            "--direct_running_mode, --runner, --sdk_container_image; got '--runner=FlinkRunner'",
        ),
    ],
)
def test_what_an_engine_cannot_use_is_an_error_with_field_value_and_rule(fields, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        BeamConfig(**fields)


@pytest.mark.parametrize(
    "endpoint", ["localhost", "localhost:0", "localhost:65536", "http://a:1", "a b:1", ":1", "[::1"]
)
def test_a_job_endpoint_that_is_no_host_and_port_is_an_error(endpoint):
    with pytest.raises(
        ValueError, match=rf"job_endpoint must be host:port, got '{re.escape(endpoint)}'$"
    ):
        BeamConfig(**PORTABLE | {"job_endpoint": endpoint})


def test_loopback_is_for_every_name_of_this_machine():
    for endpoint in ("localhost:1", "127.0.0.1:8099", "[::1]:65535"):
        BeamConfig(**PORTABLE | {"job_endpoint": endpoint})


@pytest.mark.parametrize(
    "image",
    ["gpt2-tfx", "host:5000/gpt2-tfx", "a b:1", "gpt2-tfx@sha256:12", "Team/My_Image:1", ""],
)
def test_an_image_without_a_tag_or_a_digest_is_an_error(image):
    with pytest.raises(ValueError, match=r"^image must be "):
        BeamConfig(**SPARK | {"image": image})


@pytest.mark.parametrize(
    "image",
    [
        "a:1",
        "host:5000/b/a:v1.2-rc_3",
        f"a/b@sha256:{'0f' * 32}",
        f"a/b:1@sha256:{'0f' * 32}",
    ],
)
def test_an_image_has_a_tag_or_a_digest(image):
    BeamConfig(**SPARK | {"image": image})


@pytest.mark.parametrize(
    ("fields", "seen", "unseen"),
    [
        (DIRECT, ["output", "/data", "gs://bucket/a"], []),
        (PORTABLE, ["output", "/data", "gs://bucket/a"], []),
        (FLINK, ["/data", "gs://bucket/a"], ["output", "s3://bucket/a", ""]),
        (FLINK_REST, ["/data", "gs://bucket/a"], ["output", "minio://bucket/a"]),
        (SPARK, ["gs://bucket/a"], ["output", "/data", "s3://bucket/a"]),
        (DATAFLOW, ["gs://bucket/a"], ["output", "/data", "s3://bucket/a"]),
    ],
)
def test_a_folder_that_workers_elsewhere_cannot_see_is_an_error(fields, seen, unseen):
    config = BeamConfig(**fields)
    for folder in seen:
        config.check_folder("output", folder)
    for folder in unseen:
        message = f"output must be a gs:// folder.* see it, got {folder!r}$"
        with pytest.raises(ValueError, match=message):
            config.check_folder("output", folder)


def test_a_run_here_whose_folders_the_engine_cannot_see_ends_before_anything_starts(
    tmp_path, monkeypatch
):
    from pipeline.local_runner import run  # TensorFlow, for this test alone

    monkeypatch.chdir(tmp_path)
    beam = f"beam={json.dumps(FLINK)}"
    with pytest.raises(ValueError, match=r"^output must be a gs:// folder or an absolute path"):
        run(load_config("tiny", [beam]))
    with pytest.raises(ValueError, match=r"^data\.path must be .* got 'texts'$"):
        run(load_config("tiny", [beam, "data={path: texts}", f"output={tmp_path}"]))
    assert list(tmp_path.iterdir()) == []


def test_further_options_come_last_and_experiments_add_up():
    fields = FLINK | {"options": ["--experiments=one", "--flink_version=1.20"]}
    assert BeamConfig(**fields).arguments()[-2:] == ["--experiments=one", "--flink_version=1.20"]
    assert parse(fields)["experiments"] == ["disable_logging_submission_environment", "one"]


@pytest.mark.parametrize("path", sorted(ENGINES.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_example_is_a_part_of_a_configuration_and_names_its_engine(path):
    fields = yaml.safe_load(path.read_text())
    assert list(fields) == ["beam"]
    config = load_config("tiny", [f"beam={json.dumps(fields['beam'])}"])
    assert config.beam.runner.lower() == f"{path.stem}runner"
    assert config.data.corpus == "sample"


def test_there_is_an_example_for_each_engine():
    assert {path.stem for path in ENGINES.glob("*.yaml")} == {"dataflow", "flink", "spark"}
