"""A cluster's API to send a small compiled pipeline to, and a bucket that folders stand for."""

from collections.abc import Callable, Iterator

import pytest

from pipeline.kubeflow_config import MIRRORS
from tests.bucket_filesystem import BucketFileSystem
from tests.kfp_api_server import KfpApi, serving
from tests.kubeflow_commands import ROOT, compile_pipeline, forget_environment, run


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> str:
    return compile_pipeline(tmp_path_factory.mktemp("compiled") / "gpt2.yaml")


@pytest.fixture
def api(monkeypatch, tmp_path) -> KfpApi:
    forget_environment(monkeypatch, tmp_path)
    return KfpApi()


@pytest.fixture
def host(api) -> Iterator[str]:
    with serving(api) as url:
        yield url


@pytest.fixture
def schedule(file, host) -> Callable[..., None]:
    def command(*arguments: str, name: str = "nightly", cron: str = "0 2 * * *") -> None:
        given = ["--host", host, "--name", name, "--cron", cron, *arguments]
        run("schedule", file, "--pipeline-root", ROOT, *given)

    return command


@pytest.fixture
def bucket(monkeypatch) -> Iterator[type[BucketFileSystem]]:
    BucketFileSystem.clear()
    monkeypatch.setitem(MIRRORS, "testbucket://", "/testbucket/")
    yield BucketFileSystem
    BucketFileSystem.clear()
