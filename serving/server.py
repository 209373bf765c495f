"""A gRPC server with TensorFlow Serving's API, inside this process, on a folder of versions."""

import signal
import threading
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from types import TracebackType

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from serving import MAX_MESSAGE_BYTES
from serving.servicers import ModelServicer, PredictionServicer
from serving.versions import ModelVersions

# Calls that run at the same time; the next ones wait. TensorFlow shares the cores among them.
MAX_CONCURRENT_CALLS = 16


def serve(
    base_path: str | Path,
    model_name: str,
    host: str = "127.0.0.1",
    port: int = 8500,
    poll_seconds: float = 1.0,
) -> None:
    """Serves the newest version of a model until Ctrl-C or SIGTERM, and says so on stdout.

    Calls that are running then get ten seconds to finish; a second Ctrl-C ends at once. To be
    called from the main thread, where Python handles signals.

    Args: as `Server`.

    Raises:
        ValueError: `base_path` is no folder.
        OSError: The port cannot be listened on.
    """
    server = Server(base_path, model_name, host, port, poll_seconds)
    asked_to_stop = threading.Event()
    previous = {
        number: signal.signal(number, lambda *_: asked_to_stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        server.start()
        asked_to_stop.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        server.stop(grace=10.0)


class Server:
    """Answers for the newest version in a folder; as a context manager, from `with` to its end.

    Offers `PredictionService.Predict` and `ModelService.GetModelStatus`; the services' other
    methods are UNIMPLEMENTED.

    Args:
        base_path: The folder of the model's versions, `<base_path>/<version>/saved_model.pb`:
            what TensorFlow Serving calls `model_base_path`. It may be empty for now.
        model_name: The name that requests use for it.
        host: The address to listen on; anyone who reaches it can use the model.
        port: The port to listen on; 0 for any that is free.
        poll_seconds: Time between two looks at `base_path`, in seconds.
        report: Told, in one line each, what the server does.

    Raises:
        ValueError: `base_path` is no folder, or an argument is out of its range.
    """

    def __init__(
        self,
        base_path: str | Path,
        model_name: str,
        host: str = "127.0.0.1",
        port: int = 8500,
        poll_seconds: float = 1.0,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self._base_path = Path(base_path)
        if not self._base_path.is_dir():
            raise ValueError(
                f"base_path is {self._base_path}, which is no folder: "
                "run the pipeline first, so that it pushes a model there"
            )
        if not model_name:
            raise ValueError("model_name is empty; requests need a name to ask for")
        if not 0 <= port <= 65535:
            raise ValueError(f"port is {port}; it must be from 0 to 65535")
        if not poll_seconds > 0:
            raise ValueError(f"poll_seconds is {poll_seconds}; it must be above 0")
        self._model_name = model_name
        self._host = host
        self._port = port
        self._poll_seconds = poll_seconds
        self._report = report or _print_line
        self._versions = ModelVersions(self._base_path, self._report_of_model)
        self._stopping = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="versions", daemon=True)
        self._grpc_server = self._make_grpc_server()

    @property
    def address(self) -> str:
        """The `host:port` that the server listens on, with the real port once it has started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"

    def start(self) -> int:
        """Loads the newest version, if there is one, then listens; gives the port.

        Raises:
            OSError: The port cannot be listened on, or the folder cannot be read.
        """
        try:
            self._port = self._grpc_server.add_insecure_port(self.address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self.address}; is the port in use?") from error
        self._versions.poll()
        self._grpc_server.start()
        self._follower.start()
        self._report(f"{self._model_name}: listening on {self.address}")
        if not self._versions.statuses():
            self._report_of_model(f"waiting for a first version in {self._base_path}")
        return self._port

    def stop(self, grace: float | None = None) -> None:
        """Takes no more calls; those that run get `grace` seconds to finish."""
        self._stopping.set()
        self._grpc_server.stop(grace).wait()
        if self._follower.is_alive():
            self._follower.join(grace)

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _make_grpc_server(self) -> grpc.Server:
        grpc_server = grpc.server(
            futures.ThreadPoolExecutor(MAX_CONCURRENT_CALLS, thread_name_prefix="call"),
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                # By default two servers can share a port, and take turns in answering.
                ("grpc.so_reuseport", 0),
            ],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionServicer(self._model_name, self._versions), grpc_server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelServicer(self._model_name, self._versions), grpc_server
        )
        return grpc_server

    def _follow(self) -> None:
        """Polls the folder until the server stops; a trouble with it is reported once."""
        trouble = None
        while not self._stopping.wait(self._poll_seconds):
            try:
                self._versions.poll()
                trouble = None
            except OSError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    self._report_of_model(f"cannot look for new versions: {trouble}")

    def _report_of_model(self, line: str) -> None:
        self._report(f"{self._model_name}: {line}")


def _print_line(line: str) -> None:
    print(line, flush=True)
