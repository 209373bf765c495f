"""components/versions.py: which versions there are, and which one a server would take."""

import pytest

from components.versions import list_versions, newest_version


@pytest.mark.parametrize(
    ("names", "newest"),
    [
        ([], None),
        ([".staged-5", "latest", "²"], None),
        (["7"], 7),
        (["99", "100", "1795370514"], 1795370514),
    ],
)
def test_the_newest_version_is_the_greatest_number(tmp_path, names, newest):
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").write_bytes(b"")
    assert newest_version(str(tmp_path)) == newest


def test_a_version_that_is_not_whole_is_not_taken_but_its_number_is(tmp_path):
    for name in ("3", "4"):
        (tmp_path / name).mkdir()
    (tmp_path / "3" / "saved_model.pb").write_bytes(b"")
    assert newest_version(str(tmp_path)) == 3
    assert sorted(list_versions(str(tmp_path))) == [3, 4]


def test_a_folder_that_is_not_there_has_no_versions(tmp_path):
    assert newest_version(str(tmp_path / "nowhere")) is None
    assert list_versions(str(tmp_path / "nowhere")) == []
