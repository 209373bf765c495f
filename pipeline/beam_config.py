"""Where Beam runs: on this machine, or on an engine; each field checked for the one chosen."""

import dataclasses
import json
import re
from typing import Literal
from urllib.parse import urlsplit

from components.pod_resources import check_image

Runner = Literal["DirectRunner", "PortableRunner", "FlinkRunner", "SparkRunner", "DataflowRunner"]

_ENVIRONMENT = ("environment_type", "environment_config", "image")
# What each runner takes. What it does not take must not be given: it would be given in vain.
_FIELDS = {
    "DirectRunner": ("running_mode", "workers"),
    "PortableRunner": ("job_endpoint", *_ENVIRONMENT),
    "FlinkRunner": ("workers", "job_endpoint", "master", *_ENVIRONMENT),
    "SparkRunner": ("job_endpoint", "master", *_ENVIRONMENT),
    "DataflowRunner": ("workers", "project", "region", "temp_location", "image"),
}
_REQUIRED = {
    "PortableRunner": ("job_endpoint", "environment_type"),
    "FlinkRunner": ("environment_type",),
    "SparkRunner": ("environment_type",),
    "DataflowRunner": ("project", "region", "temp_location", "image"),
}
# Beam's own may run the pipeline in a program that it downloads.
_RUNNER_CLASSES = {"DirectRunner": "components.direct_runner.DirectRunner"}
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamConfig:
    """Says where Beam runs.

    Args:
        runner: `DirectRunner`, here, in Python alone; `FlinkRunner`, `SparkRunner`,
            `DataflowRunner`; or `PortableRunner`, any engine that has a job service.
        running_mode: The direct runner's: `in_memory`, `multi_threading`, `multi_processing`.
        workers: How many work at once: the direct runner's, 1 when not given; Flink's parallelism;
            Dataflow's greatest number of machines.
        job_endpoint: host:port of the job service, which is Flink's or Spark's job server too.
        master: Instead of `job_endpoint`: the REST address of Flink (http://host:8081) or of Spark
            (http://host:6066). Beam then makes a jar of the job and uploads it, for which it
            downloads its job server's jar, or takes `--flink_job_server_jar`.
        environment_type: Where the engine's workers run our Python: `DOCKER`, in a container that
            each starts from `image`; `EXTERNAL`, in a worker pool that runs beside them;
            `PROCESS`, in a process that each starts; `LOOPBACK`, in the process that submits, for
            an engine on this machine.
        environment_config: host:port of the worker pool as a worker sees it, or the process's
            command.
        image: The container image with our code, for `DOCKER` and for Dataflow.
        project, region, temp_location: Dataflow's; the last one is a gs:// folder.
        options: Further pipeline options, each as on Beam's command line.
    """

    runner: Runner = "DirectRunner"
    running_mode: Literal["in_memory", "multi_threading", "multi_processing"] = "in_memory"
    workers: int | None = None
    job_endpoint: str | None = None
    master: str | None = None
    environment_type: Literal["DOCKER", "EXTERNAL", "PROCESS", "LOOPBACK"] | None = None
    environment_config: str | None = None
    image: str | None = None
    project: str | None = None
    region: str | None = None
    temp_location: str | None = None
    options: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers must be >= 1, got {self.workers}")
        self._check_fields()
        if "environment_type" in _FIELDS[self.runner]:
            self._check_job_service()
            self._check_environment()
        if self.image is not None:
            check_image("image", self.image)
        if self.runner == "DataflowRunner":
            self._check_dataflow()
        self._check_options()

    def arguments(self) -> list[str]:
        """Returns Beam's command line."""
        return [*self._own_arguments(), *self.options]

    @property
    def is_elsewhere(self) -> bool:
        """Whether the workers are on other machines, or in containers, than who submits."""
        return self.runner != "DirectRunner" and self.environment_type != "LOOPBACK"

    def check_folder(self, name: str, folder: str) -> None:
        """Raises an error when the workers cannot see a folder that they read or write.

        Args:
            name: The field that names the folder, for the message.
            folder: A path or a bucket's URI.

        Raises:
            ValueError: It is neither what the workers can open from where they are, a gs:// folder,
                nor, for a worker pool or a process, what a shared volume may hold.
        """
        # Of the buckets TensorFlow opens gs:// only, as it loads a model for a worker.
        if not self.is_elsewhere or folder.startswith("gs://"):
            return
        may_be_mounted = self.environment_type in ("EXTERNAL", "PROCESS")
        if not (may_be_mounted and folder.startswith("/")):
            or_path = " or an absolute path, on a volume that they mount" if may_be_mounted else ""
            raise ValueError(
                f"{name} must be a gs:// folder{or_path}, for {self.runner}'s workers to see it, "
                f"got {folder!r}"
            )

    def _own_arguments(self) -> list[str]:
        arguments = [f"--runner={_RUNNER_CLASSES.get(self.runner, self.runner)}"]
        if self.runner == "DirectRunner":
            arguments.append(f"--direct_running_mode={self.running_mode}")
            arguments.append(f"--direct_num_workers={self.workers or 1}")
        elif self.runner == "DataflowRunner":
            for name in ("project", "region", "temp_location"):
                arguments.append(f"--{name}={getattr(self, name)}")
            if self.workers:
                arguments.append(f"--max_num_workers={self.workers}")
        else:
            arguments += self._portable_arguments()
        # Our code is in the image, or is this process's own. Without this option TFX packs itself
        # into an archive for remote workers (tfx/utils/dependency_utils.py): more than a second for
        # each component, and workers have hung as they installed it (tensorflow/tfx issue 3435).
        arguments.append(f"--sdk_container_image={self.image or 'none'}")
        return arguments

    def _portable_arguments(self) -> list[str]:
        arguments = []
        if self.job_endpoint:
            arguments.append(f"--job_endpoint={self.job_endpoint}")
        elif self.runner == "FlinkRunner":
            arguments += [f"--flink_master={self.master}", "--flink_submit_uber_jar"]
        else:
            arguments += [f"--spark_rest_url={self.master}", "--spark_submit_uber_jar"]
        if self.workers:
            arguments.append(f"--parallelism={self.workers}")
        arguments.append(f"--environment_type={self.environment_type}")
        if self.environment_type == "PROCESS":
            config = json.dumps({"command": self.environment_config})
            arguments.append(f"--environment_config={config}")
        elif self.environment_type != "LOOPBACK":
            arguments.append(f"--environment_config={self.environment_config or self.image}")
        # Its only use is a warning. But it would be the one file that goes by way of the job
        # server's folder, which workers on other machines do not see (apache/beam issue 32743).
        arguments.append("--experiments=disable_logging_submission_environment")
        return arguments

    def _check_fields(self) -> None:
        taken = (*_FIELDS[self.runner], "runner", "options")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in taken and value != field.default:
                raise ValueError(
                    f"{field.name} must not be given for {self.runner}, which takes "
                    f"{', '.join(_FIELDS[self.runner])}; got {value!r}"
                )
        for name in _REQUIRED.get(self.runner, ()):
            if not getattr(self, name):
                raise ValueError(
                    f"{name} must be given for {self.runner}, got {getattr(self, name)!r}"
                )

    def _check_job_service(self) -> None:
        if (self.job_endpoint is None) == (self.master is None):
            raise ValueError(
                f"exactly one of job_endpoint and master must be given for {self.runner}, got "
                f"{self.job_endpoint!r} and {self.master!r}"
            )
        if self.job_endpoint is not None:
            _check_address("job_endpoint", self.job_endpoint)
        elif urlsplit(str(self.master)).scheme not in ("http", "https") or not _host(self.master):
            raise ValueError(
                f"master must be the address of {self.runner[: -len('Runner')]}'s REST service, "
                f"like http://host:port, got {self.master!r}"
            )

    def _check_environment(self) -> None:
        needed = {
            "DOCKER": "image",
            "EXTERNAL": "environment_config",
            "PROCESS": "environment_config",
        }.get(str(self.environment_type))
        for name in ("image", "environment_config"):
            value = getattr(self, name)
            if name == needed and not value:
                raise ValueError(
                    f"{name} must be given for environment_type {self.environment_type}, "
                    f"got {value!r}"
                )
            if name != needed and value is not None:
                raise ValueError(
                    f"{name} must not be given for environment_type {self.environment_type}, "
                    f"got {value!r}"
                )
        if self.environment_type == "EXTERNAL":
            _check_address("environment_config", str(self.environment_config))
        if self.environment_type == "LOOPBACK":
            address = self.job_endpoint or self.master
            if _host(address) not in _THIS_MACHINE:
                # Beam tells the engine to find the worker at "localhost" (worker_pool_main.py).
                raise ValueError(
                    "environment_type LOOPBACK is for an engine on this machine, at one of "
                    f"{', '.join(_THIS_MACHINE)}; got {address!r}"
                )

    def _check_dataflow(self) -> None:
        # As Beam demands of them, when it makes the job (pipeline_options_validator.py).
        if not re.fullmatch(r"[a-z][-a-z0-9:.]+[a-z0-9]", str(self.project)):
            raise ValueError(
                f"project must be a project's id, not its number or name, got {self.project!r}"
            )
        if not re.fullmatch(r"gs://[a-z0-9][a-z0-9._-]+[a-z0-9]/\S*", str(self.temp_location)):
            raise ValueError(
                f"temp_location must be a folder like gs://bucket/folder, got "
                f"{self.temp_location!r}"
            )

    def _check_options(self) -> None:
        own = {_name(argument) for argument in self._own_arguments()}
        for option in self.options:
            if not option.startswith("--"):
                raise ValueError(f"options must each begin with --, got {option!r}")
            # `experiments` may be repeated, each time with another.
            if _name(option) in own - {"--experiments"}:
                raise ValueError(
                    f"options must not repeat what the other fields set: {', '.join(sorted(own))}; "
                    f"got {option!r}"
                )


def _name(option: str) -> str:
    return option.partition("=")[0]


def _host(address: str | None) -> str | None:
    """Returns the host of an address with or without a scheme, None if there is none."""
    try:
        return urlsplit(str(address) if "//" in str(address) else f"//{address}").hostname
    except ValueError:  # as of [::1
        return None


def _check_address(name: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    if not re.fullmatch(r"[\w.-]+|\[[0-9a-fA-F:.]+\]", host) or not (
        port.isascii() and port.isdigit() and 0 < int(port) < 65536
    ):
        raise ValueError(f"{name} must be host:port, got {address!r}")
