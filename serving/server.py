"""A server with TensorFlow Serving's API, inside this process, on a folder of versions."""

import functools
import os
import signal
import threading
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from types import TracebackType

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from serving.models import Models
from serving.options import ServerOptions, join_address
from serving.predictor import Predictor
from serving.rest import RestServer
from serving.servicers import ModelServicer, PredictionServicer
from serving.tls import grpc_credentials, http_context
from serving.warm_up import load_and_warm_up

# Beside the calls that may be in progress, so that the others never wait for them: those that are
# over the limit, and questions about status and health.
SPARE_THREADS = 8

# Those whose health is told; "" is the server as a whole. Literally, because importing
# tensorflow_serving.apis.model_service_pb2 fails with protobuf's C implementation.
_SERVICES = ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")


def serve(base_path: str | Path, model_name: str, options: ServerOptions | None = None) -> None:
    """Serves a model until Ctrl-C or SIGTERM, and says so on stdout.

    Calls that are running then get ten seconds to finish; a second Ctrl-C ends at once. To be
    called from the main thread, where Python handles signals.

    Args: as `Server`.

    Raises:
        ValueError: `base_path` is no folder.
        OSError: A port cannot be listened on, or a file of TLS cannot be read.
    """
    server = Server(base_path, model_name, options)
    server.start()  # which a signal ends as Python does by itself
    asked_to_stop = threading.Event()

    def stop(number: int, frame: object) -> None:
        if asked_to_stop.is_set():
            os._exit(128 + number)  # threads that run calls would keep the process waiting
        asked_to_stop.set()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        asked_to_stop.wait()
        server.stop(grace=10.0)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Server:
    """Answers for the versions in a folder; as a context manager, from `with` to its end.

    Offers PredictionService (Predict, GetModelMetadata), ModelService and gRPC's health checking.

    Args:
        base_path: The folder of the model's versions, `<base_path>/<version>/saved_model.pb`:
            what TensorFlow Serving calls `model_base_path`. It may be empty for now.
        model_name: The name that requests use for it.
        options: Where to listen, which versions to serve, limits; the defaults when not given.
        report: Told, in one line each, what the server does.

    Raises:
        ValueError: `base_path` is no folder, or `model_name` is empty.
    """

    def __init__(
        self,
        base_path: str | Path,
        model_name: str,
        options: ServerOptions | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self._base_path = Path(base_path).absolute()
        if not self._base_path.is_dir():
            raise ValueError(
                f"base_path is {base_path}, which is no folder: "
                "run the pipeline first, so that it pushes a model there"
            )
        if not model_name:
            raise ValueError("model_name is empty; requests need a name to ask for")
        self._model_name = model_name
        self._options = options or ServerOptions()
        self._port = self._options.port
        self._report = report or _print_line
        self._models = Models(
            self._report, functools.partial(load_and_warm_up, options=self._options)
        )
        self._models.add(
            model_name, self._base_path, self._options.versions, self._options.version_labels
        )
        self._predictor = Predictor(self._models, self._options)
        self._rest_server: RestServer | None = None
        self._rest_port = self._options.rest_port or 0
        self._health = health.HealthServicer()
        self._health_status: int | None = None
        self._stopping = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="versions", daemon=True)
        self._grpc_server = self._make_grpc_server()

    @property
    def address(self) -> str:
        """The `host:port` of gRPC, with the real port once the server has started."""
        return join_address(self._options.host, self._port)

    @property
    def rest_address(self) -> str:
        """The `host:port` of REST, with the real port once the server has started."""
        return join_address(self._options.host, self._rest_port)

    @property
    def calls_in_progress(self) -> int:
        """How many calls of Predict are being run or wait for it."""
        return self._predictor.calls_in_progress

    def start(self) -> int:
        """Loads the versions that there are, then listens; gives gRPC's port.

        Raises:
            OSError: A port cannot be listened on, or the folder or a file of TLS cannot be read.
        """
        tls = http_context(self._options)
        credentials = grpc_credentials(self._options)
        try:
            if credentials is None:
                self._port = self._grpc_server.add_insecure_port(self.address)
            else:
                self._port = self._grpc_server.add_secure_port(self.address, credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self.address}; is the port in use?") from error
        self._models.poll()
        self._tell_health()
        if self._options.rest_port is not None:
            self._rest_server = RestServer(self._models, self._predictor, self._options, tls)
            try:
                self._rest_port = self._rest_server.start()
            except OSError as error:
                raise OSError(
                    f"cannot listen on {self.rest_address}; is the port in use?"
                ) from error
        self._grpc_server.start()
        self._follower.start()
        self._report(f"{self._model_name}: listening on {self.address}")
        if self._rest_server is not None:
            scheme = "https" if tls else "http"
            self._report(f"{self._model_name}: REST on {scheme}://{self.rest_address}")
        if not self._models.statuses(self._model_name):
            self._report(f"{self._model_name}: waiting for a first version in {self._base_path}")
        return self._port

    def stop(self, grace: float | None = None) -> None:
        """Takes no more calls; those that run get `grace` seconds to finish."""
        self._stopping.set()
        self._health.enter_graceful_shutdown()
        stopped = self._grpc_server.stop(grace)
        if self._rest_server is not None:
            self._rest_server.stop(grace)
        stopped.wait()
        self._predictor.close()
        if self._follower.is_alive():
            self._follower.join(grace)

    def __enter__(self) -> "Server":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _make_grpc_server(self) -> grpc.Server:
        threads = self._options.max_concurrent_calls + SPARE_THREADS
        grpc_server = grpc.server(
            futures.ThreadPoolExecutor(threads, thread_name_prefix="call"),
            options=[
                ("grpc.max_receive_message_length", self._options.max_message_bytes),
                # By default two servers can share a port, and take turns in answering.
                ("grpc.so_reuseport", 0),
            ],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionServicer(self._predictor), grpc_server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelServicer(self._models, self._tell_health), grpc_server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, grpc_server)
        return grpc_server

    def _follow(self) -> None:
        """Polls the folders until the server stops; a trouble with one is reported once."""
        trouble = None
        while not self._stopping.wait(self._options.poll_seconds):
            try:
                self._models.poll()
                trouble = None
            except OSError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    self._report(f"{self._model_name}: cannot look for new versions: {trouble}")
            self._tell_health()

    def _tell_health(self) -> None:
        Status = health_pb2.HealthCheckResponse
        status = Status.SERVING if self._models.is_available else Status.NOT_SERVING
        if status != self._health_status:  # those who watch are told of changes alone
            self._health_status = status
            for service in _SERVICES:
                self._health.set(service, status)


def _print_line(line: str) -> None:
    print(line, flush=True)
