"""Copies between buckets and folders, for what is no artifact: the data and the served models.

By Apache Beam's file systems, which are there anyway. gs:// needs apache-beam[gcp], s3:// boto3.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

# What makes a model whole: a server takes a version when this is there (components/versions.py).
MODEL_FILE = "saved_model.pb"


def set_options(beam_arguments: list[str]) -> None:
    """Has the file systems take their options from Beam's command line, e.g. --s3_endpoint_url."""
    FileSystems.set_options(PipelineOptions(beam_arguments))


def list_files(folder: str) -> dict[str, Any]:
    """Returns Beam's FileMetadata of each file below a bucket's folder, by its name from there."""
    prefix = _uri(folder) + "/"
    (found,) = FileSystems.match([prefix + "**"])
    return {
        file.path.removeprefix(prefix): file
        for file in found.metadata_list
        if not file.path.endswith("/")  # which some tools write in place of a folder
    }


def stand_in(folder: str, path: Path) -> dict[str, Any]:
    """Lays out a bucket's folder as empty files with names, sizes and times; returns `list_files`.

    It is enough to find the newest span and to tell whether the data has changed, as TFX's driver
    does, and takes neither time nor space.
    """
    files = list_files(folder)
    for name, metadata in files.items():
        copy = path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        with copy.open("wb") as file:
            file.truncate(metadata.size_in_bytes)
        _set_time(copy, metadata)
    return files


def download(files: dict[str, Any], names: Iterable[str], path: Path) -> None:
    """Writes these of the files that `list_files` gave below `path`, with the buckets' times."""
    for name in names:
        copy = path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        # As it is: Beam would unpack what ends in .gz.
        with (
            FileSystems.open(
                files[name].path, compression_type=CompressionTypes.UNCOMPRESSED
            ) as source,
            copy.open("wb") as target,
        ):
            shutil.copyfileobj(source, target)
        _set_time(copy, files[name])


def upload_model(path: Path, folder: str) -> None:
    """Writes a model to a bucket's folder so that a server that polls it never sees half of one."""
    names = [str(file.relative_to(path)) for file in sorted(path.rglob("*")) if file.is_file()]
    for name in sorted(names, key=lambda name: name == MODEL_FILE):
        _upload(path / name, f"{_uri(folder)}/{name}")


def read_text(file: str) -> str | None:
    """Returns what a bucket's file holds; None when there is no such file."""
    if not FileSystems.exists(_uri(file)):
        return None
    with FileSystems.open(_uri(file), compression_type=CompressionTypes.UNCOMPRESSED) as opened:
        return opened.read().decode()


def write_text(file: str, text: str) -> None:
    """Writes a bucket's file."""
    with FileSystems.create(_uri(file), compression_type=CompressionTypes.UNCOMPRESSED) as opened:
        opened.write(text.encode())


def _upload(path: Path, uri: str) -> None:
    with (
        path.open("rb") as source,
        FileSystems.create(uri, compression_type=CompressionTypes.UNCOMPRESSED) as target,
    ):
        shutil.copyfileobj(source, target)


def _uri(folder: str) -> str:
    # MinIO speaks S3; its address comes from the environment, AWS_ENDPOINT_URL.
    if folder.startswith("minio://"):
        folder = "s3://" + folder.removeprefix("minio://")
    return folder.rstrip("/")


def _set_time(path: Path, metadata: Any) -> None:
    seconds = metadata.last_updated_in_seconds
    os.utime(path, (seconds, seconds))
