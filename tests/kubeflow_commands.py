"""A small compiled pipeline, and the commands that bring one to a cluster, for tests."""

import argparse
import warnings
from pathlib import Path

import kfp.client
import pytest
from kfp import compiler, dsl

from pipeline.schedule_commands import add_schedule_parsers

API = "/apis/v2beta1"
ROOT = "s3://models/pipelines"


def compile_pipeline(path: Path, image: str = "registry.example/gpt2:1") -> str:
    """Writes a pipeline of one task by kfp's own compiler, and returns the path."""

    @dsl.container_component
    def train(steps: int) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image=image, command=["train"], args=[steps])

    @dsl.pipeline(name="gpt2")
    def pipeline(
        steps: int = 10,
        threshold: float = 0.5,
        push: bool = True,
        data: str = "corpus",
        sources: list = ["a"],  # noqa: B006 (kfp reads it)
        limits: dict = {},  # noqa: B006
    ) -> None:
        train(steps=steps)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiler.Compiler().compile(pipeline, str(path))
    return str(path)


def run(*arguments: str) -> None:
    """Runs one of the commands, without the program's own handling of errors."""
    parser = argparse.ArgumentParser()
    common = argparse.ArgumentParser(add_help=False)
    add_schedule_parsers(parser.add_subparsers(required=True), common)
    options = parser.parse_args(arguments)
    options.command(options)


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Returns what was printed last."""
    return capsys.readouterr().out.splitlines()[-1]


def forget_environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Keeps away from a test what kfp knows of this machine's clusters."""
    for name in ("ENDPOINT", "UI_ENDPOINT", "IAP_OAUTH2_CLIENT_ID"):
        monkeypatch.delenv(f"KF_PIPELINES_{name}", raising=False)
    monkeypatch.setattr(kfp.client.Client, "_LOCAL_KFP_CONTEXT", str(folder / "context.json"))
