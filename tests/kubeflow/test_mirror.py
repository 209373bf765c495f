"""kubeflow/mirror.py: bucket URIs become paths and paths URIs, wherever they stand."""

import json
from pathlib import Path

import pytest

from kubeflow.mirror import Mirror, find_text, find_texts, map_texts

POD, FOLDER = Mirror(), Mirror("/tmp/all", is_all=True)

PATHS = [
    ("s3://bucket/a/b", "/s3/bucket/a/b"),
    ("gs://bucket/a", "/gcs/bucket/a"),
    ("minio://mlpipeline/v2", "/minio/mlpipeline/v2"),
]


@pytest.mark.parametrize(("uri", "path"), PATHS)
def test_the_paths_are_those_of_the_launcher_and_lead_back(uri, path):
    assert (POD.to_path(uri), POD.to_uri(path)) == (path, uri)
    assert (FOLDER.to_path(uri), FOLDER.to_uri(f"/tmp/all{path}")) == (f"/tmp/all{path}", uri)


def test_gs_stays_where_beams_workers_are_elsewhere():
    mirror = Mirror(keeps_gs=True)
    assert mirror.to_path("gs://bucket/a") == mirror.to_uri("gs://bucket/a") == "gs://bucket/a"
    assert mirror.to_path("s3://bucket/a") == "/s3/bucket/a"


@pytest.mark.parametrize(
    ("mirror", "copied"),
    [(POD, {"gs", "s3", "minio"}), (FOLDER, set()), (Mirror(keeps_gs=True), {"s3", "minio"})],
)
def test_a_copy_is_made_of_what_is_in_a_bucket_and_not_here(mirror, copied):
    texts = ["gs://b/x", "s3://b/x", "minio://b/x", "/workspace/x", "scratch", "package:data"]
    assert {text.partition(":")[0] for text in texts if mirror.is_copy(text)} == copied


def test_the_volume_is_below_the_folder_that_stands_for_everything():
    for name in ("", "/x/y"):
        assert POD.to_path(f"/workspace{name}") == f"/workspace{name}"
        assert FOLDER.to_path(f"/workspace{name}") == f"/tmp/all/workspace{name}"
        assert FOLDER.to_uri(f"/tmp/all/workspace{name}") == f"/workspace{name}"
    assert FOLDER.to_path("/workspaces/x") == "/workspaces/x"


def test_a_file_of_ours_is_where_our_packages_are_installed():
    expected = Path(__file__).parent.parent.parent / "data"
    assert POD.to_path("package:data/schema.pbtxt") == str(expected / "schema.pbtxt")
    assert POD.to_path("package:data") == str(expected)


@pytest.mark.parametrize("text", ["", "scratch", "/s3", "x s3://b/c", "output/serving", "*"])
def test_any_other_text_stays(text):
    for mirror in (POD, FOLDER):
        assert mirror.to_path(text) == mirror.to_uri(text) == text


def test_the_environment_names_the_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("GPT2_TFX_BUCKETS", raising=False)
    assert Mirror.of_this_process() == Mirror()
    monkeypatch.setenv("GPT2_TFX_BUCKETS", f"{tmp_path}/")
    assert Mirror.of_this_process() == Mirror(str(tmp_path), True)


def test_texts_are_changed_in_json_within_json_and_nothing_else_is():
    settings = {
        "push_destination": '{\n  "filesystem": {"base_directory": "s3://b/tiny"}\n}',
        "untouched": '{\n  "splits": ["train"]\n}',
        "number": 3.0,
        "text": "{no JSON",
        "deep": json.dumps({"inner": json.dumps(["gs://b/x", None, True])}),
        "list": ["s3://b/1", 2],
    }
    changed = map_texts(settings, POD.to_path)
    assert json.loads(changed["push_destination"]) == {
        "filesystem": {"base_directory": "/s3/b/tiny"}
    }
    assert json.loads(json.loads(changed["deep"])["inner"]) == ["/gcs/b/x", None, True]
    assert changed["list"] == ["/s3/b/1", 2]
    for key in ("untouched", "number", "text"):
        assert changed[key] == settings[key]


def test_each_text_is_found_with_its_key():
    settings = {"a": "1", "b": '{"c": "2", "d": [{"e": "3"}, "4"]}', "f": 5}
    assert list(find_texts(settings)) == [("a", "1"), ("c", "2"), ("e", "3"), ("d", "4")]


def test_what_is_for_pods_without_a_mirror_stays_as_it_is():
    settings = {"custom_config": '{"start": "s3://b/x", "job": {"environment": {"A": "s3://b/y"}}}'}
    assert json.loads(map_texts(settings, POD.to_path)["custom_config"]) == {
        "start": "/s3/b/x",
        "job": {"environment": {"A": "s3://b/y"}},
    }
    assert list(find_texts(settings)) == [("start", "s3://b/x")]


def test_a_text_is_found_by_its_key_if_there_are_no_two():
    settings = {"a": "1", "b": '{"c": ["2", "2"], "d": ["3", "4"]}'}
    assert [find_text(settings, key) for key in ("a", "c", "e")] == ["1", "2", None]
    with pytest.raises(ValueError, match=r"^d must be given once, got \['3', '4'\]$"):
        find_text(settings, "d")
