"""`gpt2-tfx kubeflow submit`, and what all of its kind do with wrong input and a cluster's errors.

The API's server is tests/kfp_api_server.py; the compiled pipeline is from kfp's own compiler.
"""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kubeflow import cluster
from kubeflow.cluster import ClusterError
from tests.kfp_api_server import RefusedError
from tests.kubeflow_commands import API, ROOT, last_line, run

ROOTS = (
    "pipeline root must be gs://BUCKET/..., s3://BUCKET/... or minio://BUCKET/..., "
    "BUCKET of 3 to 63 lower-case letters, digits, '-', '_' and '.'"
)


def test_submit_starts_a_run_and_does_not_send_the_file_again(api, file, host, capsys):
    given = ["--pipeline-root", "gs://models", "--host", host, "--experiment", "trials"]
    run("submit", file, *given, "--name", "first", "--parameter", "data=s3://corpora/a=b")
    assert api.bodies[f"POST {API}/runs"] == {
        "display_name": "first",
        "experiment_id": api.experiments[0]["experiment_id"],
        "pipeline_version_reference": {"pipeline_id": "id-1", "pipeline_version_id": "id-2"},
        "runtime_config": {
            "parameters": {"data": "s3://corpora/a=b"},
            "pipeline_root": "gs://models",
        },
    }
    assert last_line(capsys) == f"run {api.runs[0]['run_id']}"
    run("submit", file, *given)
    assert len(api.runs) == 2
    assert api.runs[1]["display_name"].startswith("gpt2 20")
    assert len(api.versions) == len(api.experiments) == 1


def test_a_token_file_is_read_for_each_request_and_goes_into_its_header(api, host, tmp_path):
    api.token = "secret"
    token = tmp_path / "token"
    token.write_text("secret")
    run("list", "--host", host, "--token-file", str(token))
    assert {headers["authorization"] for headers in api.headers} == {"Bearer secret"}
    token.write_text("expired")
    with pytest.raises(ClusterError, match=r"answered 401 .*: Unauthenticated .*--token-file"):
        run("list", "--host", host, "--token-file", str(token))
    with pytest.raises(ValueError, match="token file is '/none'"):
        run("list", "--host", host, "--token-file", "/none")


def test_without_a_host_kfps_own_variable_says_where_the_cluster_is(api, host, monkeypatch, capsys):
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", host)
    run("list")
    assert api.requests[-1] == f"GET {API}/recurringruns"
    assert capsys.readouterr().out.startswith("NAME")
    api.token = "another"
    with pytest.raises(ClusterError, match=r"answered 401 .*; --host says where else to look"):
        run("list")


def test_without_a_pipeline_root_it_is_the_one_that_the_file_was_compiled_for(
    api, host, file, tmp_path
):
    with pytest.raises(ValueError, match=r"pipeline root must be given: .* has none"):
        run("submit", file, "--host", host)
    assert api.requests == []
    compiled = tmp_path / "gpt2.yaml"
    compiled.write_text(f"defaultPipelineRoot: minio://ours/runs\n{Path(file).read_text()}")
    run("submit", str(compiled), "--host", host)
    assert api.runs[0]["runtime_config"]["pipeline_root"] == "minio://ours/runs"


# Each with arguments in place of, or beside, those of a schedule that is right.
WRONG = {
    "seven fields": (["--cron", "0 0 2 * * * 2027"], "which has 7 fields: must be five"),
    "hour 24": (["--cron", "0 24 * * *"], "cron's hour is '24'"),
    "zone": (["--timezone", "Europe/Atlantis"], "timezone is 'Europe/Atlantis'"),
    "summer time": (["--timezone", "Europe/Berlin"], "set cronScheduleTimezone"),
    "azure": (["--pipeline-root", "abfs://models"], f"{ROOTS}, got 'abfs://models'"),
    "folder": (["--pipeline-root", "/models"], f"{ROOTS}, got '/models'"),
    "no bucket": (["--pipeline-root", "gs:///a"], f"{ROOTS}, got 'gs:///a'"),
    "short bucket": (["--pipeline-root", "s3://b/c"], f"{ROOTS}, got 's3://b/c'"),
    "no =": (["--parameter", "steps"], "parameter is 'steps': must be name=value"),
    "unknown": (
        ["--parameter", "step=1"],
        "'step': must be one that the file has: data, limits, push, sources, steps, threshold",
    ),
    "twice": (["--parameter", "steps=1", "--parameter", "steps=2"], "'steps': must be given once"),
    "float for int": (["--parameter", "steps=1.5"], "steps is '1.5': must be a whole number"),
    "bool for int": (["--parameter", "steps=true"], "steps is 'true': must be a whole number"),
    "text for float": (["--parameter", "threshold=low"], "threshold is 'low': must be a number"),
    "nan": (["--parameter", "threshold=NaN"], "threshold is 'NaN': must be a number"),
    "infinity": (["--parameter", "threshold=1e999"], "threshold is '1e999': must be a number"),
    "int for bool": (["--parameter", "push=1"], "push is '1': must be true or false"),
    "dict for list": (["--parameter", "sources={}"], "sources is '{}': must be a list"),
    "list for dict": (["--parameter", "limits=[]"], "limits is '\\[\\]': must be a mapping"),
    "blank name": (["--name", " "], "name is ' ': must not be blank"),
    "blank experiment": (["--experiment", ""], "experiment is '': must not be blank"),
    "host": (["--host", "kubeflow.example"], "host is 'kubeflow.example': must begin with http"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_said_before_anything_is_sent(api, schedule, wrong):
    arguments, message = WRONG[wrong]
    with pytest.raises(ValueError, match=message):
        schedule(*arguments)
    assert api.requests == []


def test_a_parameter_without_default_must_be_given(api, host, file, tmp_path):
    required = tmp_path / "required.yaml"
    text = Path(file).read_text()
    required.write_text(text.replace("        defaultValue: 10.0\n        isOptional: true\n", ""))
    assert required.read_text() != text
    options = ["--pipeline-root", ROOT, "--host", host]
    with pytest.raises(ValueError, match="parameter steps: must be given, as the file has no"):
        run("submit", str(required), *options)
    assert api.requests == []
    run("submit", str(required), *options, "--parameter", "steps=3")


@pytest.fixture
def with_ours(tmp_path) -> str:
    """A pipeline whose runs have the parameters that those of our own have."""
    kinds = {
        "data_root": "STRING",
        "span": "NUMBER_INTEGER",
        "training_steps": "NUMBER_INTEGER",
        "max_perplexity": "NUMBER_DOUBLE",
        "min_improvement": "NUMBER_DOUBLE",
        "max_forgetting": "NUMBER_DOUBLE",
    }
    parameters = {name: {"parameterType": kind, "isOptional": True} for name, kind in kinds.items()}
    document = {
        "pipelineInfo": {"name": "ours"},
        "schemaVersion": "2.1.0",
        "defaultPipelineRoot": ROOT,
        "root": {
            "dag": {"tasks": {"train": {"componentRef": {"name": "train"}}}},
            "inputDefinitions": {"parameters": parameters},
        },
    }
    path = tmp_path / "ours.yaml"
    path.write_text(yaml.safe_dump(document))
    return str(path)


OUT_OF_RANGE = {
    "training_steps=0": "training_steps must be a whole number >= 1, got 0",
    "span=-5": "span must be a whole number >= 0, got -5",
    "max_perplexity=0": "max_perplexity must be >= 1, got 0",
    "min_improvement=1": r"min_improvement must be in \[0, 1\), got 1",
    "max_forgetting=-1": "max_forgetting must be >= 0 and finite, got -1",
    "data_root=hdfs://nn/x": "data_root must be gs://BUCKET/.*, got 'hdfs://nn/x'",
    "data_root=texts": "data_root must be a bucket's folder or begin with '/', got 'texts'",
}


@pytest.mark.parametrize("command", [["submit"], ["schedule", "--name=n", "--cron=0 2 * * *"]])
@pytest.mark.parametrize("assignment", OUT_OF_RANGE)
def test_a_value_out_of_range_is_not_sent(api, host, with_ours, command, assignment):
    given = ["--host", host, "--parameter", assignment]
    with pytest.raises(ValueError, match=f"^parameter {OUT_OF_RANGE[assignment]}"):
        run(*command, with_ours, *given)
    assert api.requests == []


def test_values_in_range_are_sent_as_they_are(api, host, with_ours):
    values = {"span": -1, "training_steps": 1, "max_perplexity": 1.5, "data_root": "/mnt/texts"}
    given = [f"--parameter={name}={value}" for name, value in values.items()]
    run("submit", with_ours, "--host", host, *given)
    assert api.bodies[f"POST {API}/runs"]["runtime_config"]["parameters"] == values


def test_values_are_checked_without_importing_tensorflow(with_ours):
    script = (
        "import sys\n"
        "from pipeline.cli import main\n"
        f"print(main(['kubeflow', 'submit', {with_ours!r}, '--parameter=training_steps=0']))\n"
        "print({'tensorflow', 'tfx', 'apache_beam'} & set(sys.modules))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "parameter training_steps must be a whole number >= 1, got 0" in result.stderr
    assert result.stdout.splitlines() == ["1", "set()"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{}", "must be a compiled pipeline, .yaml or .yml"),
        ("a.yaml", "a: [", "but is no YAML"),
        ("a.yaml", "", "must be a compiled pipeline, a mapping of keys"),
        ("a.yaml", "- a", "a mapping of keys"),
        (
            "a.yaml",
            "model: {num_layers: 2}",
            "must be a compiled pipeline, as .* but: .*num_layers|model",
        ),
        ("a.yaml", "schemaVersion: 2.0.0", "schemaVersion is '2.0.0': must be '2.1.0'"),
        ("a.yaml", "schemaVersion: 2.1.0", "with a name and tasks"),
    ],
)
def test_a_file_that_is_no_compiled_pipeline_is_an_error(
    api, host, tmp_path, name, content, message
):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        run("submit", str(path), "--pipeline-root", ROOT, "--host", host)
    assert api.requests == []


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "answered 401 .*: no .*credentials are missing or have expired"),
        (403, "answered 403 .*: no .*lack the permission"),
        (404, "answered 404 .*: no .*no address of a Kubeflow Pipelines 2 API"),
        (503, "answered 503 .*: no$"),
    ],
)
def test_a_refusal_is_one_error_with_status_and_words(api, schedule, status, message, capfd):
    def before(request: str) -> None:
        raise RefusedError(status, "no")

    api.before = before
    with pytest.raises(ClusterError, match=message):
        schedule()
    assert len(api.requests) == 1  # at once: kfp's own client asks five times
    assert capfd.readouterr() == ("", "")


def test_a_cluster_that_is_not_there_is_an_error(api, schedule, capfd):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        port = unused.getsockname()[1]
        with pytest.raises(ClusterError, match=r"does not answer: .*Connection refused"):
            schedule("--host", f"http://127.0.0.1:{port}")
    assert capfd.readouterr() == ("", "")


def test_a_cluster_that_takes_the_connection_and_says_nothing_is_an_error(
    api, schedule, monkeypatch
):
    monkeypatch.setattr(cluster, "_TIMEOUT", (1, 0.1))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ClusterError, match=r"does not answer: .*timed out"):
            schedule("--host", f"http://127.0.0.1:{port}")


def test_a_login_page_in_place_of_an_answer_is_an_error(api, schedule, monkeypatch):
    monkeypatch.setattr(api, "answer", lambda *_: b"<html>Sign in</html>")
    with pytest.raises(ClusterError, match="answered with text/html in place of JSON"):
        schedule()
