"""components/pusher.py: versions appear whole, in rising order, and only of blessed models."""

import json
import os
from pathlib import Path

import pytest
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts
from tfx.utils import io_utils, proto_utils

import components.pusher
from components.pusher import Executor, push

FILES = {
    "fingerprint.pb": b"1",
    "saved_model.pb": b"graph",
    "variables/variables.data-00000-of-00001": b"weights",
    "variables/variables.index": b"index",
}


@pytest.fixture
def model(tmp_path) -> Path:
    """A model artifact's folder, as the Trainer writes it."""
    for name, content in FILES.items():
        path = tmp_path / "model" / "Format-Serving" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "model"


@pytest.fixture
def base(tmp_path) -> Path:
    return tmp_path / "serving" / "name"


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time that the pusher sees: what the list holds."""
    now = [1_800_000_000.25]
    monkeypatch.setattr(components.pusher.time, "time", lambda: now[0])
    return now


def read_folder(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def versions(base: Path) -> list[int]:
    """What a server that looks now takes for versions."""
    return sorted(int(name) for name in os.listdir(base) if name.isdigit()) if base.exists() else []


def test_a_push_makes_a_version_with_all_of_the_models_files(model, base, clock):
    path = push(str(model / "Format-Serving"), str(base))
    assert path == f"{base}/1800000000"
    assert os.listdir(base) == ["1800000000"]
    assert read_folder(base / "1800000000") == FILES


def test_until_all_files_are_copied_no_version_is_to_be_seen(model, base, monkeypatch):
    seen = []

    def copy_file_by_file(source: str, target: str) -> None:
        for name, content in FILES.items():
            path = Path(target) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content[:1])
            seen.append((versions(base), read_folder(Path(target)) == FILES))
            path.write_bytes(content)
            seen.append((versions(base), read_folder(Path(target)) == FILES))

    monkeypatch.setattr(components.pusher.io_utils, "copy_dir", copy_file_by_file)
    path = push(str(model / "Format-Serving"), str(base))
    assert seen == [([], False)] * (2 * len(FILES) - 1) + [([], True)]
    assert read_folder(Path(path)) == FILES


def test_a_push_that_breaks_off_leaves_no_version_and_the_next_one_clears_it_away(
    model, base, clock, monkeypatch
):
    def copy_half(source: str, target: str) -> None:
        io_utils.copy_dir_unbroken(source, target)
        (Path(target) / "saved_model.pb").unlink()
        (Path(target) / "rest-of-the-broken-push").write_bytes(b"")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(io_utils, "copy_dir_unbroken", io_utils.copy_dir, raising=False)
        patch.setattr(io_utils, "copy_dir", copy_half)
        with pytest.raises(OSError, match="No space left"):
            push(str(model / "Format-Serving"), str(base))
    assert versions(base) == []
    clock[0] += 60
    assert read_folder(Path(push(str(model / "Format-Serving"), str(base)))) == FILES
    assert os.listdir(base) == ["1800000060"]


def test_versions_rise_within_one_second_and_when_the_clock_goes_back(model, base, clock):
    source = str(model / "Format-Serving")
    pushed = [push(source, str(base)), push(source, str(base))]
    clock[0] -= 3600
    pushed.append(push(source, str(base)))
    clock[0] += 7200
    pushed.append(push(source, str(base)))
    assert [os.path.basename(path) for path in pushed] == [
        "1800000000", "1800000001", "1800000002", "1800003600"
    ]  # fmt: skip
    assert versions(base) == [1800000000, 1800000001, 1800000002, 1800003600]


def test_a_version_is_greater_than_one_that_somebody_numbered_by_hand(model, base, clock):
    (base / "99999999999").mkdir(parents=True)
    assert push(str(model / "Format-Serving"), str(base)) == f"{base}/100000000000"


def run_component(model: Path, base: Path, blessed: int) -> standard_artifacts.PushedModel:
    """Runs the executor as its launcher does, and returns its output."""
    artifact, blessing = standard_artifacts.Model(), standard_artifacts.ModelBlessing()
    artifact.uri, blessing.uri = str(model), str(model.parent / "blessing")
    blessing.set_int_custom_property("blessed", blessed)
    pushed = standard_artifacts.PushedModel()
    pushed.uri = str(model.parent / "pushed")
    Path(pushed.uri).mkdir()
    destination = pusher_pb2.PushDestination()
    destination.filesystem.base_directory = str(base)
    Executor().Do(
        {"model": [artifact], "model_blessing": [blessing]},
        {"pushed_model": [pushed]},
        {
            "push_destination": proto_utils.proto_to_json(destination),
            "custom_config": json.dumps(None),
        },
    )
    return pushed


def test_a_blessed_model_is_pushed_and_the_output_says_where(model, base, clock):
    pushed = run_component(model, base, blessed=1)
    assert read_folder(base / "1800000000") == FILES
    assert pushed.get_int_custom_property("pushed") == 1
    assert pushed.get_string_custom_property("pushed_destination") == f"{base}/1800000000"
    assert read_folder(Path(pushed.uri)) == {"pushed_to.txt": f"{base}/1800000000\n".encode()}


def test_of_a_model_that_is_not_blessed_nothing_is_written_and_the_output_says_so(model, base):
    pushed = run_component(model, base, blessed=0)
    assert not base.exists()
    assert pushed.get_int_custom_property("pushed") == 0
    assert read_folder(Path(pushed.uri)) == {}
