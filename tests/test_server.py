"""The whole server: new versions under load, start and end, health, TLS, its limit of calls."""

import itertools
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from types import SimpleNamespace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import serving.signature
from serving.options import ServerOptions
from serving.server import Server, serve
from tests.small_servers import (
    POLL_SECONDS,
    channel_to,
    echo_request,
    exported,
    get_status,
    predict,
    push,
    push_broken,
    read_outputs,
    running_server,
    states,
    wait_until,
)
from tests.small_workers import free_port


def version_that_answers(channel: grpc.Channel) -> int:
    return predict(channel, echo_request([[1]])).model_spec.version.value


def wait_until_newest_is(channel: grpc.Channel, state: tuple[int, str, str]) -> None:
    wait_until(lambda: states(channel)[0] == state)


# New versions


@pytest.mark.parametrize("max_batch_rows", [1, 3])
def test_new_versions_take_over_under_load_without_a_failed_request(tmp_path, max_batch_rows):
    push(exported(1), tmp_path, 1)
    last_version = 4
    stop = threading.Event()

    def call_until_stopped(server: Server) -> list[int]:
        """Gives the versions that answered, each checked to be the one that computed the ids."""
        versions = []
        with channel_to(server) as channel:
            while not stop.is_set():
                response = predict(channel, echo_request([[10]]))
                version = response.model_spec.version.value
                assert read_outputs(response)["ids"] == [[10 + version]]
                versions.append(version)
        return versions

    with (
        running_server(tmp_path, max_batch_rows=max_batch_rows) as server,
        futures.ThreadPoolExecutor(4) as pool,
    ):
        callers = [pool.submit(call_until_stopped, server) for _ in range(4)]
        try:
            with channel_to(server) as channel:
                for version in range(2, last_version + 1):
                    push(exported(version), tmp_path, version)
                    wait_until_newest_is(channel, (version, "AVAILABLE", ""))
                ended = [(version, "END", "") for version in (3, 2, 1)]
                wait_until(lambda: states(channel)[1:] == ended)
                time.sleep(0.1)  # some more calls, to the last version alone
        finally:
            stop.set()
        answers = [caller.result() for caller in callers]

    for versions in answers:
        assert versions == sorted(versions), "an older version answered after a newer one"
        assert versions[-1] == last_version
    assert set(itertools.chain(*answers)) == {1, 2, 3, 4}


@pytest.fixture
def held_call(monkeypatch) -> Iterator[SimpleNamespace]:
    """Makes calls to the model wait: `entered` is set by one, `release` lets it go on."""
    call = SimpleNamespace(entered=threading.Event(), release=threading.Event())
    run = serving.signature.Signature.run

    def wait_and_run(self, inputs, cancel):
        call.entered.set()
        assert call.release.wait(30)
        return run(self, inputs, cancel)

    monkeypatch.setattr(serving.signature.Signature, "run", wait_and_run)
    yield call
    call.release.set()


def test_a_call_that_runs_while_a_new_version_comes_is_finished_by_the_old(tmp_path, held_call):
    push(exported(1), tmp_path, 1)
    with (
        running_server(tmp_path) as server,
        channel_to(server) as channel,
        futures.ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(version_that_answers, channel)
        assert held_call.entered.wait(30)
        push(exported(2), tmp_path, 2)
        wait_until(lambda: states(channel) == [(2, "AVAILABLE", ""), (1, "UNLOADING", "")])
        held_call.release.set()
        assert answer.result() == 1
        wait_until(lambda: states(channel) == [(2, "AVAILABLE", ""), (1, "END", "")])


def test_a_server_waits_for_a_first_version_and_then_serves_it(tmp_path):
    lines: list[str] = []
    with (
        running_server(tmp_path, report=lines.append) as server,
        channel_to(server) as channel,
    ):
        assert lines == [
            f"echo: listening on {server.address}",
            f"echo: waiting for a first version in {tmp_path}",
        ]
        with pytest.raises(grpc.RpcError) as raised:
            version_that_answers(channel)
        assert raised.value.code() == grpc.StatusCode.NOT_FOUND
        assert raised.value.details() == "Servable not found for request: Latest(echo)"
        with pytest.raises(grpc.RpcError, match="Could not find any versions of model echo"):
            get_status(channel)

        push(exported(1), tmp_path, 1)
        wait_until(lambda: any("version 1 is served" in line for line in lines))
        assert version_that_answers(channel) == 1


def test_a_broken_version_is_reported_while_the_old_one_goes_on(tmp_path):
    push(exported(1), tmp_path, 1)
    with running_server(tmp_path) as server, channel_to(server) as channel:
        push_broken(tmp_path, 2)
        wait_until(lambda: states(channel)[0][:2] == (2, "END"))
        broken, good = states(channel)
        assert broken[2].startswith(f"{tmp_path / '2'} failed to load (attempt 1): ")
        assert good == (1, "AVAILABLE", "")
        assert version_that_answers(channel) == 1

        shutil.rmtree(tmp_path / "2")
        wait_until(lambda: states(channel) == [(1, "AVAILABLE", "")])


def test_a_base_path_that_is_deleted_is_reported_once_and_the_version_goes_on(tmp_path):
    base_path = tmp_path / "base"
    base_path.mkdir()
    push(exported(1), base_path, 1)
    lines: list[str] = []
    with (
        running_server(base_path, report=lines.append) as server,
        channel_to(server) as channel,
    ):
        shutil.rmtree(base_path)
        wait_until(lambda: "cannot look for new versions" in lines[-1])
        time.sleep(5 * POLL_SECONDS)
        assert sum("cannot look" in line for line in lines) == 1
        assert version_that_answers(channel) == 1


# Health


def health_of(channel: grpc.Channel, service: str = "") -> str:
    request = health_pb2.HealthCheckRequest(service=service)
    response = health_pb2_grpc.HealthStub(channel).Check(request, timeout=30)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)


def test_health_is_serving_once_a_version_is_available(tmp_path):
    services = ["", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"]
    with running_server(tmp_path) as server, channel_to(server) as channel:
        assert [health_of(channel, name) for name in services] == ["NOT_SERVING"] * 3
        push(exported(1), tmp_path, 1)
        wait_until(lambda: health_of(channel) == "SERVING")
        assert [health_of(channel, name) for name in services] == ["SERVING"] * 3
        with pytest.raises(grpc.RpcError) as raised:
            health_of(channel, "another")
        assert raised.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_server_that_stops_tells_its_watchers_and_finishes_the_call_that_runs(
    tmp_path, held_call
):
    push(exported(1), tmp_path, 1)
    with (
        running_server(tmp_path) as server,
        channel_to(server) as channel,
        futures.ThreadPoolExecutor(2) as pool,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        answer = pool.submit(version_that_answers, channel)
        assert held_call.entered.wait(30)
        stopped = pool.submit(server.stop, grace=30)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        with pytest.raises(futures.TimeoutError):
            stopped.result(timeout=0.2)
        held_call.release.set()
        assert answer.result() == 1
        stopped.result()


# Start and end


def test_a_missing_base_path_is_an_error_that_says_to_run_the_pipeline(tmp_path):
    base_path = tmp_path / "missing"
    with pytest.raises(ValueError, match="missing, which is no folder: run the pipeline first"):
        serve(base_path, "echo")


def test_an_empty_name_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="model_name is empty"):
        Server(tmp_path, "")


def test_a_port_in_use_is_an_error_that_names_it(tmp_path):
    with running_server(tmp_path) as server:
        port = int(server.address.rpartition(":")[2])
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            serve(tmp_path, "echo", ServerOptions(port=port))


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_serve_listens_until_it_is_told_to_end(tmp_path, capsys, signal_number):
    port = free_port(1)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def end_once_it_answers() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
        while signal.getsignal(signal_number) in handlers:  # it listens before it heeds signals
            time.sleep(0.01)
        os.kill(os.getpid(), signal_number)

    with futures.ThreadPoolExecutor(1) as pool:
        end = pool.submit(end_once_it_answers)
        serve(tmp_path, "echo", ServerOptions(port=port))
        end.result()
    assert f"echo: listening on 127.0.0.1:{port}\n" in capsys.readouterr().out
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
