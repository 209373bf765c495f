"""kubeflow/manifests/serving/fetch.sh, with folders in place of buckets."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "kubeflow" / "manifests" / "serving" / "fetch.sh"

# As rclone does it, as far as the script needs it: `s3:bucket/...` is $BUCKETS/s3/bucket/...
# $UPLOAD, if given, is a file that appears in the bucket while something is copied.
RCLONE = """
    import os, pathlib, shutil, sys

    def path(name):
        scheme, _, rest = name.partition(":")
        return pathlib.Path(os.environ["BUCKETS"], scheme, rest)

    match sys.argv[1:]:
        case ["lsf", "--dirs-only", source]:
            if not path(source).is_dir():
                sys.exit("directory not found")
            print(*(f"{each.name}/" for each in path(source).iterdir() if each.is_dir()), sep="\\n")
        case ["lsf", "--recursive", "--files-only", "--format", "ps", source]:
            for each in path(source).rglob("*"):
                if each.is_file():
                    print(f"{each.relative_to(path(source))};{each.stat().st_size}")
        case ["copy", source, target]:
            shutil.copytree(path(source), target)
            print("seen:", *os.listdir(os.environ["FOLDER"] + "/" + os.environ["MODEL"]))
            if "UPLOAD" in os.environ:
                pathlib.Path(os.environ["UPLOAD"]).write_text("more")
        case _:
            sys.exit(f"no such command: {sys.argv}")
"""


class Fetching:
    """The script, its bucket and its folder."""

    def __init__(self, folder: Path) -> None:
        self.bucket = folder / "buckets" / "s3" / "our-bucket" / "some" / "serving" / "tales"
        self.bucket.mkdir(parents=True)
        self.models = folder / "models"
        self.models.mkdir()
        program = folder / "bin" / "rclone"
        program.parent.mkdir()
        program.write_text(f"#!{sys.executable} -IS\n{textwrap.dedent(RCLONE)}")
        program.chmod(0o755)
        self.environment = {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "BUCKETS": str(folder / "buckets"),
            "MODEL": "tales",
            "MODELS_URI": "s3://our-bucket/some/serving",
            "FOLDER": str(self.models),
        }

    def push(self, version: str, whole: bool = True) -> None:
        (self.bucket / version / "variables").mkdir(parents=True)
        (self.bucket / version / "variables" / "variables.index").write_text(f"weights {version}")
        if whole:
            (self.bucket / version / "saved_model.pb").write_text(f"graph {version}")

    def once(self, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(SCRIPT), "once"],
            env={**self.environment, **more},
            capture_output=True,
            text=True,
        )

    def versions(self) -> set[str]:
        """The folders that the server sees, other than what it ignores as no number."""
        return {each.name for each in self.models.glob("tales/*")}


@pytest.fixture
def fetching(tmp_path) -> Fetching:
    return Fetching(tmp_path)


def test_the_newest_version_is_copied_with_all_its_files(fetching):
    for version in ("9", "10", "notes", ".staged-11"):
        fetching.push(version)
    done = fetching.once(KEEP="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "seen:\n" in done.stdout  # nothing in the server's folder, while it was being copied
    assert fetching.versions() == {"10"}
    copied = fetching.models / "tales" / "10"
    assert (copied / "saved_model.pb").read_text() == "graph 10"
    assert (copied / "variables" / "variables.index").read_text() == "weights 10"


def test_a_folder_that_ends_in_a_slash_is_the_same_folder(fetching):
    fetching.push("1")
    assert fetching.once(MODELS_URI="s3://our-bucket/some/serving/").returncode == 0
    assert fetching.versions() == {"1"}


def test_two_versions_are_kept_and_older_ones_go(fetching):
    for version in ("1", "2"):
        fetching.push(version)
    fetching.once()
    assert fetching.versions() == {"1", "2"}
    fetching.push("3")
    assert fetching.once().returncode == 0
    assert fetching.versions() == {"2", "3"}


def test_a_version_that_was_deleted_from_the_bucket_goes(fetching):
    for version in ("1", "2"):
        fetching.push(version)
    fetching.once()
    shutil.rmtree(fetching.bucket / "2")
    assert fetching.once().returncode == 0
    assert fetching.versions() == {"1"}


def test_uploads_that_broke_off_take_no_whole_versions_place(fetching):
    for version in ("1", "2", "3"):
        fetching.push(version)
    for version in ("4", "5"):
        fetching.push(version, whole=False)
    assert fetching.once().returncode == 0
    assert fetching.versions() == {"2", "3"}


def test_a_version_whose_upload_is_not_done_is_left_for_later(fetching):
    fetching.push("1")
    fetching.push("2", whole=False)
    done = fetching.once()
    assert done.returncode == 0
    assert "tales/2 has no saved_model.pb yet" in done.stderr
    assert fetching.versions() == {"1"}
    (fetching.bucket / "2" / "saved_model.pb").write_text("graph 2")
    fetching.once()
    assert fetching.versions() == {"1", "2"}


def test_a_version_that_changes_while_it_is_copied_is_left_for_later(fetching):
    fetching.push("1")
    done = fetching.once(UPLOAD=str(fetching.bucket / "1" / "variables" / "variables.data"))
    assert done.returncode == 1
    assert "tales/1 changed while it was copied" in done.stderr
    assert fetching.versions() == set()
    assert fetching.once().returncode == 0
    assert (fetching.models / "tales" / "1" / "variables" / "variables.data").exists()


def test_without_a_version_the_first_fetching_fails_and_says_where_it_looked(fetching):
    done = fetching.once()
    assert done.returncode == 1
    assert "no whole version under s3:our-bucket/some/serving/tales" in done.stderr


def test_a_bucket_that_cannot_be_read_takes_nothing_away(fetching):
    fetching.push("1")
    fetching.once()
    done = fetching.once(BUCKETS="/nowhere")
    assert done.returncode == 1
    assert "directory not found" in done.stderr
    assert fetching.versions() == {"1"}


def test_it_goes_on_fetching_what_is_pushed_until_it_is_told_to_stop(fetching):
    environment = {**fetching.environment, "EVERY": "0.1"}
    process = subprocess.Popen(["sh", str(SCRIPT)], env=environment, stderr=subprocess.DEVNULL)
    try:
        for version in ("1", "2"):  # the first is pushed after it looked, and failed
            time.sleep(0.3)
            fetching.push(version)
            deadline = time.monotonic() + 60
            while version not in fetching.versions() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert version in fetching.versions()
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
