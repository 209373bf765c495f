"""A bucket in memory, which Apache Beam finds by its scheme, `testbucket://`."""

import io
import posixpath
from collections.abc import Iterator
from typing import Any, ClassVar

from apache_beam.io.filesystem import CompressionTypes, FileMetadata, FileSystem


class BucketFileSystem(FileSystem):
    """Holds files by URI, with the second each was written in.

    Attributes:
        files: What each file holds.
        times: When it was written.
        events: `read` or `write` and the URI, in order.
    """

    files: ClassVar[dict[str, bytes]] = {}
    times: ClassVar[dict[str, float]] = {}
    events: ClassVar[list[tuple[str, str]]] = []

    @classmethod
    def put(cls, uri: str, content: bytes, seconds: float = 1_700_000_000) -> None:
        cls.files[uri], cls.times[uri] = content, seconds

    @classmethod
    def clear(cls) -> None:
        for kept in (cls.files, cls.times, cls.events):
            kept.clear()

    @classmethod
    def read(cls) -> list[str]:
        return [uri for event, uri in cls.events if event == "read"]

    @classmethod
    def written(cls) -> list[str]:
        return [uri for event, uri in cls.events if event == "write"]

    @classmethod
    def scheme(cls) -> str:
        return "testbucket"

    def join(self, basepath: str, *paths: str) -> str:
        return posixpath.join(basepath, *paths)

    def split(self, path: str) -> tuple[str, str]:
        return posixpath.split(path)

    def mkdirs(self, path: str) -> None:
        raise AssertionError("a bucket has no folders")

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for uri, content in self.files.items():
            if uri.startswith(dir_or_prefix):
                yield FileMetadata(uri, len(content), self.times[uri])

    def open(self, path: str, mime_type: str = "", compression_type: str = "") -> Any:
        # Beam's own file systems unpack a .gz by default.
        assert compression_type == CompressionTypes.UNCOMPRESSED
        self.events.append(("read", path))
        return io.BytesIO(self.files[path])

    def create(self, path: str, mime_type: str = "", compression_type: str = "") -> Any:
        assert compression_type == CompressionTypes.UNCOMPRESSED
        return _Written(path)

    def exists(self, path: str) -> bool:
        return path in self.files

    def _unused(self, *arguments: Any) -> Any:
        raise NotImplementedError

    copy = rename = size = last_updated = checksum = metadata = delete = _unused


class _Written(io.BytesIO):
    """Is in the bucket when it is closed, as with real buckets."""

    def __init__(self, uri: str) -> None:
        super().__init__()
        self._uri = uri

    def close(self) -> None:
        if not self.closed:
            BucketFileSystem.put(self._uri, self.getvalue(), 1_800_000_000)
            BucketFileSystem.events.append(("write", self._uri))
        super().close()
