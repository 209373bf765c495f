"""The server on small made models, so that no GPT-2 is needed: they echo the prompt, shifted."""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

import serving.servicers
from serving.client import GenerateClient, ServingError, VersionState
from serving.predict import essential_line
from serving.server import Server, serve
from serving.versions import ModelVersions, State, VersionNotServedError, VersionStatus

POLL_SECONDS = 0.02
CONTEXT = 16


class Echo(tf.Module):
    """Has the signature of an exported GPT-2; "generates" the prompt's own ids plus `shift`."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = tf.Variable(shift, dtype=tf.int32)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.int32, "ids"),
            tf.TensorSpec([None], tf.int32, "lengths"),
            tf.TensorSpec([None], tf.int32, "max_new_tokens"),
            tf.TensorSpec([None], tf.float32, "temperature"),
            tf.TensorSpec([None], tf.int32, "top_k"),
            tf.TensorSpec([None], tf.float32, "top_p"),
            tf.TensorSpec([None], tf.int32, "seed"),
        ]
    )
    def generate(self, ids, lengths, max_new_tokens, temperature, top_k, top_p, seed):
        del temperature, top_k, top_p, seed
        total = tf.reduce_max(lengths) + tf.reduce_max(max_new_tokens)
        message = tf.strings.format("{} tokens exceed the context of {}", (total, CONTEXT))
        tf.debugging.Assert(total <= CONTEXT, [message])
        return {"ids": ids + self.shift, "lengths": tf.minimum(lengths, max_new_tokens)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Gives the folder of an exported Echo with a shift."""
    base = tmp_path_factory.mktemp("exported")

    def export(shift: int) -> Path:
        folder = base / str(shift)
        if not folder.exists():
            echo = Echo(shift)
            tf.saved_model.save(echo, str(folder), signatures={"serving_default": echo.generate})
        return folder

    return export


def push(source: Path, base_path: Path, version: int) -> None:
    """Copies under a name that is no number, then renames, as the pusher does."""
    staged = base_path / f"staged-{version}"
    shutil.copytree(source, staged)
    staged.rename(base_path / str(version))


def push_broken(base_path: Path, version: int) -> None:
    folder = base_path / str(version)
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"no model")


@contextlib.contextmanager
def running_server(base_path: Path, **options) -> Iterator[Server]:
    with Server(base_path, "echo", port=0, poll_seconds=POLL_SECONDS, **options) as server:
        yield server


@pytest.fixture(scope="module")
def channel(
    exported: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[grpc.Channel]:
    """A channel to a server that has version 3, whose shift is 100."""
    base_path = tmp_path_factory.mktemp("base")
    push(exported(100), base_path, 3)
    no_limit = [("grpc.max_receive_message_length", -1)]
    with (
        running_server(base_path) as server,
        grpc.insecure_channel(server.address, options=no_limit) as channel,
    ):
        yield channel


def predict_request(
    ids: list[list[int]] | np.ndarray, model_name: str = "echo", max_new_tokens: int = 4
) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model_name
    arrays = {
        "ids": np.array(ids, np.int32),
        "lengths": np.array([len(row) for row in ids], np.int32),
        "max_new_tokens": np.full(len(ids), max_new_tokens, np.int32),
        "temperature": np.zeros(len(ids), np.float32),
        "top_k": np.zeros(len(ids), np.int32),
        "top_p": np.ones(len(ids), np.float32),
        "seed": np.zeros(len(ids), np.int32),
    }
    for name, array in arrays.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return request


def predict(channel: grpc.Channel, request: predict_pb2.PredictRequest):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    return stub.Predict(request, timeout=30)


def get_status(channel: grpc.Channel, model_name: str = "echo", version: int | None = None):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = model_name
    if version is not None:
        request.model_spec.version.value = version
    return model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=30)


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} seconds"
        time.sleep(0.01)


def wait_until_newest_is(client: GenerateClient, state: VersionState) -> None:
    wait_until(lambda: client.status()[0] == state)


# Predict: what a request gets


def test_an_answer_has_the_outputs_and_says_which_model_version_and_signature_made_them(channel):
    response = predict(channel, predict_request([[1, 2, 3], [4, 5, 6]], max_new_tokens=2))
    assert response.model_spec.name == "echo"
    assert response.model_spec.version.value == 3
    assert response.model_spec.signature_name == "serving_default"
    assert sorted(response.outputs) == ["ids", "lengths"]
    assert tf.make_ndarray(response.outputs["ids"]).tolist() == [[101, 102, 103], [104, 105, 106]]
    assert tf.make_ndarray(response.outputs["lengths"]).tolist() == [2, 2]


def test_an_output_filter_chooses_outputs(channel):
    request = predict_request([[1]])
    request.output_filter.append("lengths")
    assert list(predict(channel, request).outputs) == ["lengths"]


def test_the_served_version_can_be_named(channel):
    request = predict_request([[1]])
    request.model_spec.version.value = 3
    assert predict(channel, request).model_spec.version.value == 3


def test_a_request_of_more_than_four_mebibytes_is_taken(channel):
    ids = np.zeros((1, 2_000_000), np.int32)
    request = predict_request(ids)
    request.inputs["lengths"].CopyFrom(tf.make_tensor_proto([1], tf.int32))
    response = predict(channel, request)
    assert tf.make_ndarray(response.outputs["ids"]).shape == (1, 2_000_000)


def test_a_tensor_may_be_written_as_one_value_that_is_repeated(channel):
    request = predict_request([[1, 2, 3]])
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_INT32, int_val=[7])
    proto.tensor_shape.dim.add(size=1)
    proto.tensor_shape.dim.add(size=3)
    request.inputs["ids"].CopyFrom(proto)
    response = predict(channel, request)
    assert tf.make_ndarray(response.outputs["ids"]).tolist() == [[107, 107, 107]]


def no_model_spec(request):
    request.ClearField("model_spec")


def no_model_name(request):
    request.model_spec.name = ""


def unknown_model(request):
    request.model_spec.name = "nobody"


def unknown_version(request):
    request.model_spec.version.value = 7


def unknown_label(request):
    request.model_spec.version_label = "stable"


def unknown_signature(request):
    request.model_spec.signature_name = "x"


def missing_input(request):
    del request.inputs["seed"]


def extra_input(request):
    request.inputs["more"].CopyFrom(request.inputs["seed"])


def misnamed_input(request):
    request.inputs["sead"].CopyFrom(request.inputs["seed"])
    del request.inputs["seed"]


def unknown_output(request):
    request.output_filter.append("x")


def doubled_output(request):
    request.output_filter.extend(["ids", "ids"])


def wrong_dtype(request):
    request.inputs["lengths"].CopyFrom(tf.make_tensor_proto([1.0]))


def dtype_of_no_tensor(request):
    request.inputs["lengths"].dtype = 999


def wrong_rank(request):
    request.inputs["ids"].CopyFrom(tf.make_tensor_proto([1, 2]))


def shape_that_is_not_known(request):
    request.inputs["ids"].tensor_shape.dim[1].size = -1


def more_shape_than_content(request):
    request.inputs["ids"].tensor_shape.dim[1].size = 9


def a_few_bytes_that_claim_terabytes(request):
    request.inputs["ids"].tensor_shape.dim[1].size = 10**12


def rows_that_do_not_fit_the_context(request):
    request.inputs["max_new_tokens"].CopyFrom(tf.make_tensor_proto([20]))


INPUTS = "ids,lengths,max_new_tokens,seed,temperature,top_k,top_p"


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (no_model_spec, "INVALID_ARGUMENT", "Missing ModelSpec"),
        (no_model_name, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (unknown_model, "NOT_FOUND", "Servable not found for request: Latest(nobody)"),
        (unknown_version, "NOT_FOUND", "Servable not found for request: Specific(echo, 7)"),
        (unknown_label, "INVALID_ARGUMENT", "Unrecognized servable version label: stable"),
        (unknown_signature, "FAILED_PRECONDITION", 'Serving signature key "x" not found.'),
        (
            missing_input,
            "INVALID_ARGUMENT",
            "input size does not match signature: 6!=7 "
            "len({ids,lengths,max_new_tokens,temperature,top_k,top_p}) != "
            f"len({{{INPUTS}}}). Sent extra: {{}}. Missing but required: {{seed}}.",
        ),
        (
            extra_input,
            "INVALID_ARGUMENT",
            "input size does not match signature: 8!=7 "
            "len({ids,lengths,max_new_tokens,more,seed,temperature,top_k,top_p}) != "
            f"len({{{INPUTS}}}). Sent extra: {{more}}. Missing but required: {{}}.",
        ),
        (
            misnamed_input,
            "INVALID_ARGUMENT",
            "input size does not match signature: 7!=7 "
            "len({ids,lengths,max_new_tokens,sead,temperature,top_k,top_p}) != "
            f"len({{{INPUTS}}}). Sent extra: {{sead}}. Missing but required: {{seed}}.",
        ),
        (
            unknown_output,
            "INVALID_ARGUMENT",
            "output tensor alias not found in signature: x "
            "Outputs expected to be in the set {ids,lengths}.",
        ),
        (doubled_output, "INVALID_ARGUMENT", "duplicate output tensor alias: ids"),
        (wrong_dtype, "INVALID_ARGUMENT", "input lengths: expected int32, got float32"),
        (dtype_of_no_tensor, "INVALID_ARGUMENT", "input lengths: expected int32, got dtype 999"),
        (
            wrong_rank,
            "INVALID_ARGUMENT",
            "input ids: expected shape (None, None), got (2,)",
        ),
        (shape_that_is_not_known, "INVALID_ARGUMENT", "input ids: its shape must be known"),
        (more_shape_than_content, "INVALID_ARGUMENT", "tensor parsing error: ids"),
        (
            a_few_bytes_that_claim_terabytes,
            "INVALID_ARGUMENT",
            "input ids: expected at most 16777216 elements, got shape (1, 1000000000000)",
        ),
        (
            rows_that_do_not_fit_the_context,
            "INVALID_ARGUMENT",
            "22 tokens exceed the context of 16",
        ),
    ],
)
def test_a_bad_request_gets_tensorflow_servings_code_and_message(channel, spoil, code, message):
    request = predict_request([[1, 2]])
    spoil(request)
    with pytest.raises(grpc.RpcError) as raised:
        predict(channel, request)
    assert (raised.value.code().name, raised.value.details()) == (code, message)


def test_a_very_long_name_in_an_error_is_cut_to_what_a_client_can_receive(channel):
    request = predict_request([[1]], model_name="x" * 100_000)
    with pytest.raises(grpc.RpcError) as raised:
        predict(channel, request)
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
    assert raised.value.details().startswith("Servable not found for request: Latest(xxx")


def test_the_other_methods_are_unimplemented(channel):
    classify = prediction_service_pb2_grpc.PredictionServiceStub(channel).Classify
    reload = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest
    for method, request in (
        (classify, classification_pb2.ClassificationRequest()),
        (reload, model_management_pb2.ReloadConfigRequest()),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            method(request, timeout=30)
        assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            "Graph execution error:\n\nDetected at node Assert/Assert defined at (most recent "
            "call last):\n<stack traces unavailable>\nassertion failed: [9 tokens are too many]\n"
            "\t [[{{node Assert/Assert}}]] [Op:__inference_signature_wrapper_155]",
            "9 tokens are too many",
        ),
        ("assertion failed: [lengths must be >= 1, got [1 0]]", "lengths must be >= 1, got [1 0]"),
        (
            "assertion failed: [lengths] [x (lengths:0) = ] [-1]\n\t [[{{node Assert}}]]",
            "assertion failed: [lengths] [x (lengths:0) = ] [-1]",
        ),
        (
            "Graph execution error:\n\n2 root error(s) found.\n"
            "  (0) INVALID_ARGUMENT:  assertion failed: [9 tokens are too many]\n"
            "\t [[{{node Assert}}]]\n\t [[while/_1]]\n"
            "  (1) INVALID_ARGUMENT:  another\n\t [[{{node Assert_1}}]]\n"
            "0 successful operations.\n0 derived errors ignored. [Op:__inference_wrapper_155]",
            "9 tokens are too many",
        ),
        ("Incompatible shapes: [2] vs. [3] [Op:AddV2] name: ", "Incompatible shapes: [2] vs. [3]"),
        ("", ""),
    ],
)
def test_of_a_graphs_error_the_sentence_is_kept(message, sentence):
    assert essential_line(message) == sentence


# GetModelStatus


def test_the_status_of_a_served_version_is_available_without_error(channel):
    for response in (get_status(channel), get_status(channel, version=3)):
        (entry,) = response.model_version_status
        assert entry.version == 3
        assert entry.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE
        assert (entry.status.error_code, entry.status.error_message) == (0, "")


@pytest.mark.parametrize(
    ("model_name", "version", "message"),
    [
        ("nobody", None, "Could not find any versions of model nobody"),
        ("echo", 7, "Could not find version 7 of model echo"),
    ],
)
def test_the_status_of_what_is_not_there_is_not_found(channel, model_name, version, message):
    with pytest.raises(grpc.RpcError) as raised:
        get_status(channel, model_name, version)
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
    assert raised.value.details() == message


def test_a_status_request_without_a_model_spec_is_invalid(channel):
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    with pytest.raises(grpc.RpcError) as raised:
        stub.GetModelStatus(get_model_status_pb2.GetModelStatusRequest(), timeout=30)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details() == "Missing ModelSpec"


# New versions, through the whole server


def test_new_versions_take_over_under_load_without_a_failed_request(exported, tmp_path):
    push(exported(1), tmp_path, 1)
    last_version = 4
    stop = threading.Event()

    def call_until_stopped(address: str) -> list[int]:
        """Gives the versions that answered, each checked to be the one that computed the ids."""
        versions = []
        with grpc.insecure_channel(address) as channel:
            while not stop.is_set():
                response = predict(channel, predict_request([[10]]))
                version = response.model_spec.version.value
                assert tf.make_ndarray(response.outputs["ids"]).tolist() == [[10 + version]]
                versions.append(version)
        return versions

    with running_server(tmp_path) as server, futures.ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(call_until_stopped, server.address) for _ in range(4)]
        try:
            with GenerateClient(server.address, "echo") as client:
                for version in range(2, last_version + 1):
                    push(exported(version), tmp_path, version)
                    wait_until_newest_is(client, VersionState(version, "AVAILABLE", ""))
                ended = [VersionState(version, "END", "") for version in (3, 2, 1)]
                wait_until(lambda: client.status()[1:] == ended)
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
    run = serving.servicers.predict

    def wait_and_run(version, request):
        call.entered.set()
        assert call.release.wait(30)
        return run(version, request)

    monkeypatch.setattr(serving.servicers, "predict", wait_and_run)
    yield call
    call.release.set()


def test_a_call_that_runs_while_a_new_version_comes_is_finished_by_the_old(
    exported, tmp_path, held_call
):
    push(exported(1), tmp_path, 1)
    with (
        running_server(tmp_path) as server,
        GenerateClient(server.address, "echo") as client,
        futures.ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(client.generate, "To be", max_new_tokens=1)
        assert held_call.entered.wait(30)
        push(exported(2), tmp_path, 2)
        wait_until(lambda: client.status() == [(2, "AVAILABLE", ""), (1, "UNLOADING", "")])
        held_call.release.set()
        assert answer.result().model_version == 1
        wait_until(lambda: client.status() == [(2, "AVAILABLE", ""), (1, "END", "")])


def test_a_call_that_runs_when_the_server_stops_is_finished(exported, tmp_path, held_call):
    push(exported(1), tmp_path, 1)
    with (
        running_server(tmp_path) as server,
        GenerateClient(server.address, "echo") as client,
        futures.ThreadPoolExecutor(2) as pool,
    ):
        answer = pool.submit(client.generate, "To be", max_new_tokens=1)
        assert held_call.entered.wait(30)
        stopped = pool.submit(server.stop, grace=30)
        with pytest.raises(futures.TimeoutError):
            stopped.result(timeout=0.2)
        held_call.release.set()
        assert answer.result().model_version == 1
        stopped.result()


def test_a_server_waits_for_a_first_version_and_then_serves_it(exported, tmp_path):
    lines: list[str] = []
    with running_server(tmp_path, report=lines.append) as server:
        assert lines == [
            f"echo: listening on {server.address}",
            f"echo: waiting for a first version in {tmp_path}",
        ]
        with grpc.insecure_channel(server.address) as channel:
            with pytest.raises(grpc.RpcError) as raised:
                predict(channel, predict_request([[1]]))
            assert raised.value.code() == grpc.StatusCode.NOT_FOUND
            assert raised.value.details() == "Servable not found for request: Latest(echo)"
            with pytest.raises(grpc.RpcError, match="Could not find any versions of model echo"):
                get_status(channel)

            push(exported(1), tmp_path, 1)
            wait_until(lambda: any("version 1 is served" in line for line in lines))
            assert predict(channel, predict_request([[1]])).model_spec.version.value == 1


def test_a_broken_version_is_reported_while_the_old_one_goes_on(exported, tmp_path):
    push(exported(1), tmp_path, 1)
    with running_server(tmp_path) as server, GenerateClient(server.address, "echo") as client:
        push_broken(tmp_path, 2)
        wait_until(lambda: client.status()[0][:2] == (2, "END"))
        broken, good = client.status()
        assert broken.error.startswith(f"{tmp_path / '2'} failed to load (attempt 1): ")
        assert good == (1, "AVAILABLE", "")
        assert client.generate("To be", max_new_tokens=1).model_version == 1

        shutil.rmtree(tmp_path / "2")
        wait_until(lambda: client.status() == [(1, "AVAILABLE", "")])


def test_a_base_path_that_is_deleted_is_reported_once_and_the_version_goes_on(exported, tmp_path):
    base_path = tmp_path / "base"
    base_path.mkdir()
    push(exported(1), base_path, 1)
    lines: list[str] = []
    with running_server(base_path, report=lines.append) as server:
        shutil.rmtree(base_path)
        wait_until(lambda: "cannot look for new versions" in lines[-1])
        time.sleep(5 * POLL_SECONDS)
        assert sum("cannot look" in line for line in lines) == 1
        with GenerateClient(server.address, "echo") as client:
            assert client.generate("To be", max_new_tokens=1).model_version == 1


# New versions, one look at a time


class MadeModels:
    """Stands for `tf.saved_model.load`: gives a model without signatures, or fails."""

    def __init__(self) -> None:
        self.broken: set[int] = set()
        self.loads: list[int] = []

    def __call__(self, folder: str) -> SimpleNamespace:
        version = int(Path(folder).name)
        self.loads.append(version)
        if version in self.broken:
            raise tf.errors.DataLossError(None, None, "bad checksum")
        return SimpleNamespace(signatures={})


@pytest.fixture
def models() -> MadeModels:
    return MadeModels()


@pytest.fixture
def versions(models, tmp_path) -> ModelVersions:
    return ModelVersions(tmp_path, report=lambda line: None, load=models, retry_seconds=0.0)


def put(base_path: Path, name: str, content: str = "model") -> None:
    folder = base_path / name
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_text(content)


def served(versions: ModelVersions) -> int | None:
    try:
        with versions.use() as version:
            return version.number
    except VersionNotServedError:
        return None


def test_the_highest_number_is_served_and_not_the_last_in_the_alphabet(versions, tmp_path):
    for name in ("9", "10", "abc", "11-staged", "-12", "1" * 30):
        put(tmp_path, name)
    versions.poll()
    assert served(versions) == 10


def test_a_folder_without_its_saved_model_file_is_not_taken(versions, models, tmp_path):
    put(tmp_path, "1")
    (tmp_path / "2" / "variables").mkdir(parents=True)
    versions.poll()
    assert served(versions) == 1
    put(tmp_path, "2")
    versions.poll()
    assert served(versions) == 2
    assert models.loads == [1, 2]


def test_a_version_in_use_is_unloaded_only_after_its_last_call(versions, tmp_path):
    put(tmp_path, "1")
    versions.poll()
    with versions.use():
        put(tmp_path, "2")
        versions.poll()
        versions.poll()
        assert versions.statuses() == [
            VersionStatus(2, State.AVAILABLE),
            VersionStatus(1, State.UNLOADING),
        ]
        with pytest.raises(VersionNotServedError), versions.use(1):
            pass
    versions.poll()
    assert versions.statuses() == [VersionStatus(2, State.AVAILABLE), VersionStatus(1, State.END)]


def test_deleting_the_newest_version_rolls_back_to_the_one_before(versions, tmp_path):
    put(tmp_path, "1")
    put(tmp_path, "2")
    versions.poll()
    assert served(versions) == 2
    shutil.rmtree(tmp_path / "2")
    versions.poll()
    assert served(versions) == 1
    versions.poll()
    assert versions.statuses() == [VersionStatus(1, State.AVAILABLE)]


def test_deleting_the_only_version_leaves_it_served(versions, tmp_path):
    put(tmp_path, "1")
    versions.poll()
    shutil.rmtree(tmp_path / "1")
    versions.poll()
    assert served(versions) == 1


def test_a_start_beside_a_broken_newest_version_serves_the_one_before(versions, models, tmp_path):
    put(tmp_path, "1")
    put(tmp_path, "2")
    models.broken = {2}
    versions.poll()
    assert served(versions) == 1
    assert versions.statuses()[0] == VersionStatus(
        2,
        State.END,
        tf.errors.DATA_LOSS,
        f"{tmp_path / '2'} failed to load (attempt 1): bad checksum",
    )


def test_a_broken_version_is_tried_six_times_and_again_once_it_changes(versions, models, tmp_path):
    put(tmp_path, "1")
    models.broken = {1}
    for _ in range(10):
        versions.poll()
    assert models.loads == [1] * 6
    models.broken = set()
    put(tmp_path, "1", content="another model")
    versions.poll()
    assert served(versions) == 1


def test_a_broken_version_is_not_tried_again_before_its_time(models, tmp_path):
    versions = ModelVersions(tmp_path, report=lambda line: None, load=models, retry_seconds=60.0)
    put(tmp_path, "1")
    models.broken = {1}
    for _ in range(10):
        versions.poll()
    assert models.loads == [1]


# Start and end


def test_a_missing_base_path_is_an_error_that_says_to_run_the_pipeline(tmp_path):
    base_path = tmp_path / "missing"
    with pytest.raises(ValueError, match="missing, which is no folder: run the pipeline first"):
        serve(base_path, "echo")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_name": ""}, "model_name is empty"),
        ({"port": 70_000}, "port is 70000; it must be from 0 to 65535"),
        ({"poll_seconds": 0.0}, "poll_seconds is 0.0; it must be above 0"),
    ],
)
def test_a_bad_option_is_an_error_that_names_it(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        Server(tmp_path, **({"model_name": "echo"} | options))


def test_a_port_in_use_is_an_error_that_names_it(tmp_path):
    with running_server(tmp_path) as server:
        port = int(server.address.rpartition(":")[2])
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            serve(tmp_path, "echo", port=port)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_serve_listens_until_it_is_told_to_end(tmp_path, capsys, signal_number):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def end_once_it_answers() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
        os.kill(os.getpid(), signal_number)

    with futures.ThreadPoolExecutor(1) as pool:
        end = pool.submit(end_once_it_answers)
        serve(tmp_path, "echo", port=port)
        end.result()
    assert f"echo: listening on 127.0.0.1:{port}\n" in capsys.readouterr().out
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


# With the client


@pytest.fixture
def client(exported, tmp_path) -> Iterator[GenerateClient]:
    """A client of a server whose model gives the prompt back."""
    push(exported(0), tmp_path, 1)
    with running_server(tmp_path) as server, GenerateClient(server.address, "echo") as client:
        yield client


def test_text_in_any_script_goes_through_client_and_server_unchanged(client):
    prompts = ["To be", "être", "Привет", "世界", "👩‍🚀", " \n\t x", "<|endoftext|>"]
    completions = client.generate(prompts, max_new_tokens=8)
    assert [completion.text for completion in completions] == prompts
    assert {completion.model_version for completion in completions} == {1}


def test_a_prompt_longer_than_the_context_is_refused_with_the_models_own_words(client):
    with pytest.raises(ServingError) as raised:
        client.generate("To be, or not to be, that is the question", max_new_tokens=8)
    assert raised.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details == "20 tokens exceed the context of 16"
    assert str(raised.value) == "INVALID_ARGUMENT: 20 tokens exceed the context of 16"


def test_an_unknown_model_name_is_refused_with_what_to_look_at(client):
    with GenerateClient(client.address, "nobody") as other:
        with pytest.raises(ServingError, match="no version of a model named nobody") as raised:
            other.generate("To be")
        assert raised.value.code == grpc.StatusCode.NOT_FOUND
        with pytest.raises(ServingError, match="Could not find any versions of model nobody"):
            other.status()
