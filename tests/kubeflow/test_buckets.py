"""kubeflow/buckets.py and kubeflow/exchange.py: what goes from buckets to folders and back."""

import gzip
from pathlib import Path

import pytest

from kubeflow import buckets
from kubeflow.exchange import bring_back, fetch
from kubeflow.mirror import Mirror

pytestmark = pytest.mark.usefixtures("bucket")

BUCKET = "testbucket://models"


@pytest.fixture
def mirror(tmp_path) -> Mirror:
    return Mirror(str(tmp_path))


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_files_are_listed_by_name_and_what_stands_for_a_folder_is_left_out(bucket):
    for name in ("data/a.txt", "data/b/c.txt", "data/b/", "database/d.txt"):
        bucket.put(f"{BUCKET}/{name}", b"12345")
    listed = buckets.list_files(f"{BUCKET}/data/")
    assert {name: file.size_in_bytes for name, file in listed.items()} == {"a.txt": 5, "b/c.txt": 5}


def test_a_stand_in_has_names_sizes_and_times_and_nothing_is_read(bucket, tmp_path):
    bucket.put(f"{BUCKET}/data/span-1/a.txt", b"x" * 1000, 1_600_000_123)
    buckets.stand_in(f"{BUCKET}/data", tmp_path)
    stat = (tmp_path / "span-1" / "a.txt").stat()
    assert (stat.st_size, stat.st_mtime) == (1000, 1_600_000_123)
    assert bucket.events == []


def test_a_download_is_byte_for_byte_and_has_the_buckets_time(bucket, tmp_path):
    packed = gzip.compress(b"text")
    bucket.put(f"{BUCKET}/data/a.jsonl.gz", packed, 1_600_000_123)
    bucket.put(f"{BUCKET}/data/other.txt", b"other")
    files = buckets.stand_in(f"{BUCKET}/data", tmp_path)
    buckets.download(files, ["a.jsonl.gz"], tmp_path)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == packed
    assert (tmp_path / "a.jsonl.gz").stat().st_mtime == 1_600_000_123
    assert bucket.read() == [f"{BUCKET}/data/a.jsonl.gz"]


def test_a_model_becomes_whole_with_its_last_file(bucket, tmp_path):
    for name in ("saved_model.pb", "variables/variables.index", "assets.extra/x", "fingerprint.pb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    buckets.upload_model(tmp_path, f"{BUCKET}/tiny/7")
    assert bucket.written()[-1] == f"{BUCKET}/tiny/7/saved_model.pb"
    assert {uri: content.decode() for uri, content in bucket.files.items()} == {
        f"{BUCKET}/tiny/7/{name}": name
        for name in (
            "saved_model.pb",
            "variables/variables.index",
            "assets.extra/x",
            "fingerprint.pb",
        )
    }


def test_a_text_is_read_as_written_and_none_where_there_is_none():
    assert buckets.read_text(f"{BUCKET}/last.json") is None
    buckets.write_text(f"{BUCKET}/last.json", "späte Daten")
    assert buckets.read_text(f"{BUCKET}/last.json") == "späte Daten"


def test_minio_is_read_by_the_protocol_of_s3(monkeypatch):
    asked = []
    monkeypatch.setattr(buckets.FileSystems, "exists", lambda uri: asked.append(uri))
    buckets.read_text("minio://bucket/x.json")
    assert asked == ["s3://bucket/x.json"]


def put_versions(bucket) -> None:
    for name in ("9/saved_model.pb", "9/v/1", "10/saved_model.pb", "10/v/1", "11/v/1"):
        bucket.put(f"{BUCKET}/tiny/{name}", name.encode())
    bucket.put(f"{BUCKET}/tiny/last_data.json", b"{}")


def test_the_baseline_gets_the_newest_whole_version_only(bucket, mirror, tmp_path):
    put_versions(bucket)
    fetch({"serving_folder": f"{BUCKET}/tiny", "stride": 3}, mirror)
    assert files_below(tmp_path) == {
        "testbucket/models/tiny/10/saved_model.pb": b"10/saved_model.pb",
        "testbucket/models/tiny/10/v/1": b"10/v/1",
    }


def test_with_nothing_in_production_nothing_is_fetched(mirror, tmp_path):
    fetch({"serving_folder": f"{BUCKET}/tiny"}, mirror)
    assert files_below(tmp_path) == {}


@pytest.mark.parametrize(("start", "fetched"), [("scratch", 0), ("production", 2)])
def test_the_trainer_gets_production_if_it_starts_there(bucket, mirror, start, fetched, tmp_path):
    put_versions(bucket)
    config = f'{{"start": "{start}", "serving_folder": "{BUCKET}/tiny"}}'
    fetch({"custom_config": config}, mirror)
    assert len(files_below(tmp_path)) == fetched


def test_the_trainer_gets_all_of_the_weights_to_start_from(bucket, mirror, tmp_path):
    for name in ("config.json", "model.safetensors"):
        bucket.put(f"{BUCKET}/weights/{name}", name.encode())
    put_versions(bucket)
    fetch(
        {"custom_config": f'{{"start": "{BUCKET}/weights", "serving_folder": "{BUCKET}/tiny"}}'},
        mirror,
    )
    assert files_below(tmp_path / "testbucket" / "models") == {
        "weights/config.json": b"config.json",
        "weights/model.safetensors": b"model.safetensors",
    }


def test_the_pusher_knows_all_versions_and_uploads_its_own(bucket, mirror, tmp_path):
    put_versions(bucket)
    settings = {"push_destination": f'{{"filesystem": {{"base_directory": "{BUCKET}/tiny"}}}}'}
    fetch(settings, mirror)
    base = tmp_path / "testbucket" / "models" / "tiny"
    assert sorted(path.name for path in base.iterdir()) == ["10", "11", "9"]
    assert (files_below(tmp_path), bucket.read()) == ({}, [])
    (base / "12").mkdir()
    for name in ("saved_model.pb", "weights"):
        (base / "12" / name).write_text(name)
    bring_back(settings, mirror)
    assert bucket.written() == [
        f"{BUCKET}/tiny/12/weights",
        f"{BUCKET}/tiny/12/saved_model.pb",
    ]


def test_a_setting_that_cannot_be_in_a_bucket_is_an_error(mirror):
    with pytest.raises(ValueError, match=r"^checkpoints must not be in a bucket, got 'testbucket:"):
        fetch({"custom_config": f'{{"checkpoints": "{BUCKET}/x"}}'}, mirror)


def test_each_of_several_texts_under_one_key_is_looked_at(mirror):
    files = f'{{"start_files": ["{BUCKET}/x", "a"]}}'
    with pytest.raises(ValueError, match=r"^start_files must not be in a bucket"):
        fetch({"custom_config": files}, mirror)


def test_a_training_jobs_environment_may_name_a_bucket(mirror, tmp_path):
    job = f'{{"environment": {{"ARTIFACTS": "{BUCKET}/x", "start": "production"}}}}'
    fetch({"custom_config": f'{{"start": "scratch", "job": {job}}}'}, mirror)
    assert files_below(tmp_path) == {}


def test_where_a_folder_stands_for_the_buckets_nothing_is_copied(bucket, tmp_path):
    put_versions(bucket)
    mirror = Mirror(str(tmp_path), is_all=True)
    settings = {"serving_folder": f"{BUCKET}/tiny", "base_directory": f"{BUCKET}/tiny"}
    fetch(settings, mirror)
    (tmp_path / "testbucket/models/tiny/12").mkdir(parents=True)
    (tmp_path / "testbucket/models/tiny/12/saved_model.pb").touch()
    bring_back(settings, mirror)
    assert bucket.events == []
