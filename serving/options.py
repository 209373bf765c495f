"""What can be set about the server, each with a default, checked before anything starts."""

import dataclasses
from pathlib import Path
from typing import Literal

from serving import MAX_MESSAGE_BYTES

# Which versions are served: the newest n, all, or those of these numbers.
Versions = int | Literal["all"] | list[int]

# A lock does not wait for ever: Python refuses what the system cannot count.
_MOST_SECONDS = 24 * 60 * 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Describes a server; the defaults serve the newest version to this machine, over gRPC alone.

    Args:
        host: The address to listen on; anyone who reaches it can use the model.
        port: gRPC's port, TF Serving's by default; 0 for any that is free.
        rest_port: The port of TF Serving's REST API; 0 for any that is free; without one, none.
        ui: Whether REST's port gives a page at `/` to try the model on; or another HTML file
            for it.
        poll_seconds: Time between two looks for new versions, in seconds.
        versions: The versions to serve: the newest n, "all", or a list of numbers.
        version_labels: Names for versions, such as `stable`. One may name a version that is still
            to come.
        warm_up: Whether the requests in a version's assets.extra/tf_serving_warmup_requests are
            run before it is served. A version that fails at one is not served.
        max_batch_rows: Calls that wait are run together up to this number of rows; 1 turns that
            off.
        batch_wait_seconds: How long those who were just answered are waited for, when others wait
            already, so that all of them share the next batch.
        batch_threads: Batches that run at the same time.
        allowed_batch_sizes: A batch is filled up to the next of these numbers of rows, so that a
            compiler sees few shapes; ascending, the last is `max_batch_rows`. Empty: any size.
        tls_key, tls_certificate: Files in PEM with the server's private key and its certificate
            chain; with them both ports speak TLS only.
        tls_client_ca: A file in PEM with the authorities of clients' certificates; with it every
            client must show one.
        max_message_bytes: The longest message that is taken, in bytes.
        max_rows: The most rows (prompts) of a call.
        max_text_bytes: The most bytes of text in a call, for all of its rows: scoring them is not
            limited otherwise.
        max_new_tokens: The most tokens that a call may ask for, for each of its rows.
        max_concurrent_calls: Calls in progress, waiting ones included, beyond which the next gets
            RESOURCE_EXHAUSTED at once.
    """

    host: str = "127.0.0.1"
    port: int = 8500
    rest_port: int | None = None
    ui: bool | str = False
    poll_seconds: float = 1.0
    versions: Versions = 1
    version_labels: dict[str, int] = dataclasses.field(default_factory=dict)
    warm_up: bool = True
    # Half of a batch's cost is reading the weights once; on two cores little is won beyond 16 rows.
    max_batch_rows: int = 16
    # A client on the same machine comes back within a few milliseconds; a token takes about 30.
    batch_wait_seconds: float = 0.02
    batch_threads: int = 1
    allowed_batch_sizes: list[int] = dataclasses.field(default_factory=list)
    tls_key: str | None = None
    tls_certificate: str | None = None
    tls_client_ca: str | None = None
    max_message_bytes: int = MAX_MESSAGE_BYTES
    max_rows: int = 16
    max_text_bytes: int = 1024 * 1024
    max_new_tokens: int = 1024  # GPT-2's context
    max_concurrent_calls: int = 64

    def __post_init__(self) -> None:
        _check("port", self.port, 0, 65535)
        if self.rest_port is not None:
            _check("rest_port", self.rest_port, 0, 65535)
        if self.page is not None and not self.page.is_file():
            raise ValueError(f"ui must be true, false or an HTML file, got {self.ui}: no such file")
        if self.ui and self.rest_port is None:
            raise ValueError("ui needs rest_port, the port that gives the page")
        if not 0 < self.poll_seconds <= _MOST_SECONDS:
            raise ValueError(
                f"poll_seconds must be > 0 and <= {_MOST_SECONDS}, got {self.poll_seconds}"
            )
        _check("batch_wait_seconds", self.batch_wait_seconds, 0, _MOST_SECONDS)
        for field in ("max_batch_rows", "batch_threads", "max_message_bytes", "max_rows"):
            _check(field, getattr(self, field), 1)
        for field in ("max_text_bytes", "max_new_tokens", "max_concurrent_calls"):
            _check(field, getattr(self, field), 1)
        if isinstance(self.versions, int):
            _check("versions", self.versions, 1)
        elif self.versions != "all" and not self.versions:
            raise ValueError("versions must hold at least one number, got []")
        sizes = self.allowed_batch_sizes
        if sizes and (
            sizes != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] != self.max_batch_rows
        ):
            raise ValueError(
                "allowed_batch_sizes must ascend from >= 1 to max_batch_rows="
                f"{self.max_batch_rows}, got {sizes}"
            )
        self._check_tls()

    def _check_tls(self) -> None:
        if (self.tls_key is None) != (self.tls_certificate is None):
            raise ValueError("tls_key and tls_certificate must be given both or not at all")
        if self.tls_client_ca is not None and self.tls_key is None:
            raise ValueError("tls_client_ca needs tls_key and tls_certificate")

    @property
    def page(self) -> Path | None:
        """The HTML file that REST's port gives at `/`."""
        if isinstance(self.ui, str):
            return Path(self.ui)
        return Path(__file__).parent / "ui.html" if self.ui else None

    @property
    def address(self) -> str:
        """The `host:port` of gRPC, with brackets around an IPv6 address."""
        return join_address(self.host, self.port)


def join_address(host: str, port: int) -> str:
    """Returns `host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check(field: str, value: float, least: int, most: int | None = None) -> None:
    if not least <= value or (most is not None and not value <= most):  # so NaN is refused
        rule = f"must be >= {least}" if most is None else f"must be in [{least}, {most}]"
        raise ValueError(f"{field} {rule}, got {value}")
