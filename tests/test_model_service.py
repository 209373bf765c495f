"""ModelService and GetModelMetadata: what is told of the models, and changes to them."""

import gc
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from serving.versions import ModelVersions
from tests.small_servers import (
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
)


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    """A channel to a server that has version 3 of one model."""
    base_path = tmp_path_factory.mktemp("base")
    push(exported(100), base_path, 3)
    labels = {"stable": 3}
    with (
        running_server(base_path, version_labels=labels) as server,
        channel_to(server) as channel,
    ):
        yield channel


def error_of(method, request) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as raised:
        method(request, timeout=30)
    return raised.value.code().name, raised.value.details()


# GetModelStatus


def test_the_status_of_a_served_version_is_available_without_error(channel):
    for response in (get_status(channel), get_status(channel, version=3)):
        (entry,) = response.model_version_status
        assert entry.version == 3
        assert entry.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE
        assert (entry.status.error_code, entry.status.error_message) == (0, "")


def test_a_status_may_be_asked_for_by_label(channel):
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "echo"
    request.model_spec.version_label = "stable"
    assert [e.version for e in stub.GetModelStatus(request).model_version_status] == [3]
    request.model_spec.version_label = "x"
    message = "Unrecognized servable version label: x"
    assert error_of(stub.GetModelStatus, request) == ("INVALID_ARGUMENT", message)


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
    request = get_model_status_pb2.GetModelStatusRequest()
    assert error_of(stub.GetModelStatus, request) == ("INVALID_ARGUMENT", "Missing ModelSpec")


# GetModelMetadata


def metadata_request(*fields: str, model_name: str = "echo"):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = model_name
    return request


def test_the_metadata_are_the_signatures_as_the_file_has_them(channel):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    response = stub.GetModelMetadata(metadata_request("signature_def"), timeout=30)
    assert (response.model_spec.name, response.model_spec.version.value) == ("echo", 3)
    answered = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(answered)
    saved = saved_model_pb2.SavedModel.FromString((exported(100) / "saved_model.pb").read_bytes())
    assert dict(answered.signature_def) == dict(saved.meta_graphs[0].signature_def)
    assert list(answered.signature_def["defaults"].defaults["max_new_tokens"].int_val) == [4]


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (
            get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]),
            "INVALID_ARGUMENT",
            "Missing ModelSpec",
        ),
        (
            metadata_request(),
            "INVALID_ARGUMENT",
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (
            metadata_request("signature_def", "x"),
            "INVALID_ARGUMENT",
            "Metadata field x is not supported",
        ),
        (
            metadata_request("signature_def", model_name="nobody"),
            "NOT_FOUND",
            "Servable not found for request: Latest(nobody)",
        ),
    ],
)
def test_a_bad_metadata_request_gets_its_code_and_message(channel, request_, code, message):
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    assert error_of(stub.GetModelMetadata, request_) == (code, message)


# HandleReloadConfigRequest


def reload_request(*models: tuple[str, Path], **policy) -> model_management_pb2.ReloadConfigRequest:
    request = model_management_pb2.ReloadConfigRequest()
    for name, base_path in models:
        config = request.config.model_config_list.config.add()
        config.name, config.base_path, config.model_platform = name, str(base_path), "tensorflow"
        if "labels" in policy:
            config.version_labels.update(policy["labels"])
        if "specific" in policy:
            config.model_version_policy.specific.versions.extend(policy["specific"])
        if "latest" in policy:
            config.model_version_policy.latest.num_versions = policy["latest"]
        if policy.get("all"):
            config.model_version_policy.all.SetInParent()
    return request


def test_a_reload_changes_versions_labels_models_and_folders(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for base_path, shifts in ((first, (1, 2)), (second, (3,))):
        base_path.mkdir()
        for shift in shifts:
            push(exported(shift), base_path, shift)

    def shift_of(label: str = "", model_name: str = "echo") -> int:
        request = echo_request([[0]], model_name)
        request.model_spec.version_label = label
        if not label:
            request.model_spec.ClearField("version_label")
        return read_outputs(predict(channel, request))["ids"][0][0]

    with running_server(first) as server, channel_to(server) as channel:
        reload = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest
        assert states(channel) == [(2, "AVAILABLE", "")]

        labels = {"stable": 1, "canary": 2}
        response = reload(reload_request(("echo", first), specific=[1, 2], labels=labels))
        assert response.status.error_code == 0
        assert states(channel) == [(2, "AVAILABLE", ""), (1, "AVAILABLE", "")]
        assert [shift_of("stable"), shift_of("canary"), shift_of()] == [1, 2, 2]

        reload(reload_request(("echo", first), latest=1, labels={"stable": 2}))
        assert states(channel) == [(2, "AVAILABLE", ""), (1, "END", "")]
        assert shift_of("stable") == 2

        reload(reload_request(("echo", first), ("other", second), all=True))
        assert [shift_of(), shift_of(model_name="other")] == [2, 3]
        with pytest.raises(grpc.RpcError, match="Unrecognized servable version label: stable"):
            shift_of("stable")

        reload(reload_request(("echo", second)))
        assert shift_of() == 3
        with pytest.raises(grpc.RpcError, match=r"Servable not found for request: Latest\(other\)"):
            shift_of(model_name="other")


def test_what_a_reload_replaced_is_not_kept(tmp_path):
    folders = tmp_path / "first", tmp_path / "second"
    for base_path in folders:
        base_path.mkdir()
        push(exported(1), base_path, 1)

    def kept() -> set[Path]:
        gc.collect()
        objects = gc.get_objects()
        return {each.base_path for each in objects if isinstance(each, ModelVersions)}

    with running_server(folders[0]) as server, channel_to(server) as channel:
        assert kept() & set(folders) == {folders[0]}
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        stub.HandleReloadConfigRequest(reload_request(("echo", folders[1])))
        assert kept() & set(folders) == {folders[1]}


def wrong_platform(request):
    request.config.model_config_list.config[0].model_platform = "caffe"


def relative_path(request):
    request.config.model_config_list.config[0].base_path = "here"


def listed_twice(request):
    request.config.model_config_list.config.append(request.config.model_config_list.config[0])


def custom_config(request):
    request.config.Clear()
    request.config.custom_model_config.SetInParent()


def empty_list_of_versions(request):
    policy = request.config.model_config_list.config[0].model_version_policy
    policy.CopyFrom(model_server_config_pb2.ModelConfig().model_version_policy)
    policy.specific.SetInParent()


def label_of_a_version_that_is_not_served(request):
    request.config.model_config_list.config[0].version_labels["stable"] = 7


def folder_that_is_not_there(request):
    request.config.model_config_list.config[0].base_path = "/not/there"


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (
            wrong_platform,
            "INVALID_ARGUMENT",
            "model echo: model_platform must be 'tensorflow', got 'caffe'",
        ),
        (
            relative_path,
            "INVALID_ARGUMENT",
            "Expected model echo to have an absolute path or URI; got base_path()=here",
        ),
        (
            listed_twice,
            "INVALID_ARGUMENT",
            "Illegal to list model echo multiple times in config list",
        ),
        (
            custom_config,
            "FAILED_PRECONDITION",
            "Cannot transition to requested config. It is only legal to transition from one "
            "ModelConfigList to another.",
        ),
        (
            empty_list_of_versions,
            "INVALID_ARGUMENT",
            "model echo: specific must list at least one version",
        ),
        (
            label_of_a_version_that_is_not_served,
            "FAILED_PRECONDITION",
            "Request to assign label to version 7 of model echo, "
            "which is not currently available for inference",
        ),
        (
            folder_that_is_not_there,
            "FAILED_PRECONDITION",
            "model echo: [Errno 2] No such file or directory: '/not/there'",
        ),
    ],
)
def test_a_bad_reload_is_refused_and_the_model_goes_on(channel, tmp_path, spoil, code, message):
    push(exported(100), tmp_path, 2)
    request = reload_request(("echo", tmp_path))
    spoil(request)
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    assert error_of(stub.HandleReloadConfigRequest, request) == (code, message)
    assert predict(channel, echo_request([[1]])).model_spec.version.value == 3


def test_a_reload_to_a_folder_without_a_version_that_loads_is_refused(channel, tmp_path):
    push_broken(tmp_path, 1)
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    code_and_message = error_of(stub.HandleReloadConfigRequest, reload_request(("echo", tmp_path)))
    assert code_and_message == ("UNKNOWN", "Some models did not become available: {echo}")
    assert predict(channel, echo_request([[1]])).model_spec.version.value == 3
