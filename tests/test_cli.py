"""pipeline/cli.py: exit codes and messages; the commands at work are in tests/e2e."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline.cli
from pipeline.cli import main

ROOT = Path(__file__).parent.parent

# What takes seconds to import, and a mistyped command need not wait for.
HEAVY = {"apache_beam", "grpc", "keras", "tensorflow", "tensorflow_model_analysis", "tfx"}


def run_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, with our packages importable from anywhere."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("command", ["run", "serve", "status", "generate", "report"])
def test_a_bad_configuration_ends_in_one_message_and_code_1(tmp_path, command):
    prompt = ["To be"] if command == "generate" else []
    result = run_python(
        tmp_path, "-m", "pipeline", command, "--config=tiny", "--set=training.steps=0", *prompt
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == (
        f"error: {ROOT}/pipeline/configs/tiny.yaml with --set training.steps=0 "
        "does not describe a run:\n"
        "  training: steps must be >= 1, got 0\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "rest_port", "ui"),
    [
        ([], None, False),
        (["--ui"], 8501, True),
        (["--ui", "--set=serving.rest_port=9000"], 9000, True),
    ],
)
def test_serve_starts_the_described_server_and_with_ui_its_page(
    tmp_path, monkeypatch, arguments, rest_port, ui
):
    served = []
    monkeypatch.setattr("serving.server.serve", lambda *given: served.append(given))
    monkeypatch.setattr("pipeline.cli._log_native_messages", lambda config, name: None)
    ours = ["--config=tiny", f"--set=output={tmp_path}", "--set=serving.port=9500"]
    assert main(["serve", *ours, *arguments]) == 0
    ((base_path, model_name, options),) = served
    assert (base_path, model_name) == (f"{tmp_path}/serving/tiny", "tiny")
    assert (options.port, options.rest_port, options.ui) == (9500, rest_port, ui)


def test_an_unknown_configuration_is_told_with_the_known_ones(tmp_path):
    result = run_python(tmp_path, "-m", "pipeline", "run", "--config", "gpt5")
    assert result.returncode == 1
    assert result.stderr.startswith("error: config must be a YAML file or one of gpt2, ")
    assert result.stderr.endswith("got 'gpt5', which is no file\n")
    assert result.stderr.count("\n") == 1


def test_a_bad_configuration_is_told_at_once_without_importing_tensorflow(tmp_path):
    script = (
        "import sys\n"
        "from pipeline.cli import main\n"
        "code = main(['run', '--config=tiny', '--set=model.num_heads=5'])\n"
        "print(code, *sorted(name for name in sys.modules if '.' not in name))\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = run_python(tmp_path, "-c", script)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    code, *modules = result.stdout.split()
    assert code == "1"
    assert "num_heads must divide embedding_dim, got num_heads=5" in result.stderr
    assert "pydantic" in modules
    assert not HEAVY & set(modules)
    # Processor time, which does not depend on what else the machine does.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


def test_help_names_the_commands_and_their_options(tmp_path):
    result = run_python(tmp_path, "-m", "pipeline", "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("usage: gpt2-tfx ")
    for command in ("run", "serve", "generate", "status", "score", "report", "weights"):
        assert f"\n    {command} " in result.stdout


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("run", ["--config NAME|FILE", "--set a.b=value", "--traceback"]),
        (
            "generate",
            [
                *("prompt", "--max-new-tokens", "--temperature", "--top-k", "--top-p", "--seed"),
                *("--repetition-penalty", "--stop TEXT", "--truncate", "--no-stream"),
            ],
        ),
        *(
            (
                command,
                [
                    *("--timeout", "--model-version N", "--version-label LABEL", "--tls "),
                    *("--metadata KEY=VALUE", "--tls-root FILE", "--tls-certificate FILE"),
                ],
            )
            for command in ("generate", "score", "status")
        ),
    ],
)
def test_a_commands_help_names_its_options(capsys, command, options):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for option in options:
        assert option in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["train"], "invalid choice: 'train'"),
        (["run", "--steps=5"], "unrecognized arguments: --steps=5"),
        (["generate"], "the following arguments are required: prompt"),
        (["generate", "x", "--seed=y"], "argument --seed: invalid int value: 'y'"),
        (["status", "--metadata=x"], "argument --metadata: must look like key=value, got 'x'"),
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_code_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def fail_with(monkeypatch):
    """Makes the command `run` raise an error."""

    def replace(error: BaseException) -> None:
        def fail(options):
            raise error

        monkeypatch.setattr(pipeline.cli, "_run", fail)

    return replace


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("texts/a.txt:3: no good"), "error: texts/a.txt:3: no good\n"),
        # Beam adds where in its graph it was.
        (ValueError("no good [while running 'Read/Map-ptransform-7']"), "error: no good\n"),
        (MemoryError(), "error: MemoryError\n"),
        (PermissionError(13, "Permission denied", "a.pem"), "error: a.pem: Permission denied\n"),
        (OSError("no good"), "error: no good\n"),
    ],
)
def test_an_error_on_the_way_ends_in_one_message_and_code_1(capsys, fail_with, error, message):
    fail_with(error)
    assert main(["run"]) == 1
    assert capsys.readouterr().err == message


def test_an_output_that_cannot_be_written_to_is_an_error_with_its_name(tmp_path, capsys):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(["status", "--config=tiny", f"--set=output={output}"]) == 1
        assert capsys.readouterr().err.startswith(
            f"error: output must be a folder to write to, got {str(output)!r}: [Errno 20] "
        )


def test_with_traceback_an_error_says_where_it_happened(capsys, fail_with):
    fail_with(ValueError("no good"))
    assert main(["run", "--traceback"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):")
    assert f'{__file__}", line' in shown
    assert shown.endswith("ValueError: no good\nerror: no good\n")


def test_an_interrupted_command_ends_with_code_130_and_no_traceback(capsys, fail_with):
    fail_with(KeyboardInterrupt())
    assert main(["run"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
