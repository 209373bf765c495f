"""The command line, `gpt2-tfx`."""

import argparse
import dataclasses
import os
import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import client_commands
from pipeline.kubeflow_commands import add_kubeflow_parsers
from pipeline.native_messages import start_tensorflow
from pipeline.weights import add_weights_parsers

if TYPE_CHECKING:
    from pipeline.config import PipelineConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code; errors go to stderr, one message each."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:  # noqa: BLE001 (a program's last resort: it says what and ends)
        if options.traceback:
            traceback.print_exc()
        elif sys.stderr is not sys.__stderr__:
            # Which is the log file by now. The report finds the message there.
            traceback.print_exc(file=sys.__stderr__)
            print(f"error: {_message(error)}", file=sys.__stderr__)
        print(f"error: {_message(error)}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    config = _config(options)
    log = _log_native_messages(config, time.strftime("run-%Y%m%d-%H%M%S"))
    print(f"log: {log}", file=sys.stderr)
    from pipeline import local_runner

    local_runner.log_to_file(log)
    summary = local_runner.run(config)
    assert summary, "only TFX's own command line keeps a runner from running"
    print(summary.describe())
    if summary.pushed_path:
        same = ["--config", options.config, *(f"--set={override}" for override in options.set)]
        program = os.path.relpath(Path(sys.prefix) / "bin" / "gpt2-tfx")
        print(f"\nto serve it:   {shlex.join([program, 'serve', *same])}")


def _serve(options: argparse.Namespace) -> None:
    config = _config(options)
    _log_native_messages(config, "serve")
    from serving.server import serve

    serving = config.serving
    if options.ui:
        rest_port = 8501 if serving.rest_port is None else serving.rest_port  # as TF Serving's
        serving = dataclasses.replace(serving, ui=True, rest_port=rest_port)
    serve(config.serving_base, config.model_name, serving)


def _generate(options: argparse.Namespace) -> None:
    config = _config(options)
    _log_native_messages(config, "generate")
    client_commands.generate(config, options)


def _status(options: argparse.Namespace) -> None:
    config = _config(options)
    _log_native_messages(config, "status")
    client_commands.status(config, options)


def _score(options: argparse.Namespace) -> None:
    if options.model is None:
        if options.stride is not None:
            raise ValueError(
                f"stride is {options.stride}, but only a model of --model can be given another one"
            )
        config = _config(options)
        _log_native_messages(config, "score")
        client_commands.score(config, options)
        return
    start_tensorflow()
    from pipeline.score import describe, score_files

    print(describe(score_files(options.model, options.files, options.stride)))


def _report(options: argparse.Namespace) -> None:
    config = _config(options)
    log = _log_native_messages(config, "report")
    from pipeline.local_runner import log_to_file
    from pipeline.report import write_report

    log_to_file(log)
    print(f"wrote {write_report(config, options.output)}")


def _log_native_messages(config: "PipelineConfig", name: str) -> Path:
    """Sends what TensorFlow's C++ prints at start-up to a file below `output`, and returns it.

    Nothing else turns those lines off. Python's own stderr stays what it was. This must come before
    TensorFlow is imported, which is why this file's imports stand in its functions.
    """
    folder = Path(config.output) / "logs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"output must be a folder to write to, got {config.output!r}: {error}"
        ) from error
    path = folder / f"{name}.log"
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    with path.open("a") as file:
        os.dup2(file.fileno(), 2)
    return path


def _config(options: argparse.Namespace) -> "PipelineConfig":
    from pipeline.config_file import load_config

    return load_config(options.config, options.set)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--traceback", action="store_true", help="with an error, say where")
    configured = argparse.ArgumentParser(add_help=False, parents=[common])
    configured.add_argument(
        "--config", default="shakespeare", metavar="NAME|FILE", help="default: shakespeare"
    )
    configured.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="a.b=value",
        help="put another value in the configuration; may be given again",
    )

    parser = argparse.ArgumentParser(
        prog="gpt2-tfx", description="Trains, evaluates, pushes and serves a GPT-2."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: object, description: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, parents=[configured], help=description, description=description
        )
        added.set_defaults(command=command)
        return added

    add("run", _run, "Run the pipeline.")
    serve = add("serve", _serve, "Serve what was pushed, over gRPC with TF Serving's API.")
    serve.add_argument(
        "--ui", action="store_true", help="with REST, and a page to try the model on"
    )
    status = add("status", _status, "Tell which versions the server has.")
    generate = add("generate", _generate, "Ask the server to continue a text.")
    score = add(
        "score",
        _score,
        "Tell how well a model predicts texts: perplexity and bits per byte. The server's model, "
        "or, without any server, that of --model.",
    )
    score.add_argument("--model", metavar="PATH", help="folder with a model or weights, any form")
    score.add_argument(
        "--stride", type=int, help="with --model: tokens that the window moves; see the README"
    )
    score.add_argument("files", nargs="+", metavar="FILE", help=".txt, .jsonl[.gz] or .parquet")
    report = add("report", _report, "Write a page about the runs, their data and their models.")
    report.add_argument(
        "--output", metavar="FILE", help="the page; default: report.html in the output folder"
    )
    client_commands.add_generate_options(generate)
    for command in (status, generate, score):
        client_commands.add_connection_options(command)
    add_weights_parsers(commands, common)
    add_kubeflow_parsers(commands, configured, common)
    return parser


def _message(error: Exception) -> str:
    """Returns what a person needs: the message without Beam's trail, never empty."""
    if isinstance(error, OSError) and error.strerror and error.filename and not error.filename2:
        return f"{error.filename}: {error.strerror}"
    message = str(error).split(" [while running '")[0].strip()
    return message or type(error).__name__
