"""The part of a configuration that says how the pipeline runs on Kubeflow Pipelines."""

import dataclasses
import re

from components.pod_resources import OBJECT_NAME, PodResources, check_environment
from pipeline.training_job_config import TrainingJobConfig

# Where each task finds the volume, and what is no artifact: checkpoints, downloaded corpora, and
# pushed models unless those go to a bucket.
WORKSPACE = "/workspace"

# What Kubeflow's launcher opens, and the folder of a pod where it keeps a mirror of each
# (kubeflow/pipelines, backend/src/v2/component/launcher_v2.go, LocalPathForURI).
MIRRORS = {"gs://": "/gcs/", "s3://": "/s3/", "minio://": "/minio/"}

_IN_BUCKET = re.compile(r"[a-z0-9][-a-z0-9._]{1,61}[a-z0-9](/[^\s?#]*)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResourcesConfig(PodResources):
    """Says what a component's pod asks for, and is held to."""

    cpu: str | int | float = "2"
    memory: str | int = "8Gi"


@dataclasses.dataclass(frozen=True, kw_only=True)
class KubeflowConfig:
    """Says how the pipeline runs on Kubeflow Pipelines; a run on one machine has no use for it.

    Args:
        volume: The PersistentVolumeClaim that each task has at /workspace. Without one that folder
            is empty in each task: a training that is tried again begins anew.
        serving_folder: A bucket's folder for the served models, each below it under its name;
            /workspace/serving when not given.
        resources: What a component's pod asks for, by the component's name; that of `default`, or
            2 cores and 8 GiB, for those that are not named.
        training_job: Several pods that train, if it is not to be the Trainer's own. They need the
            volume, with the access mode ReadWriteMany where they are on several nodes.
        retries: How often a task that failed is tried again.
        skip_without_new_data: Whether a run ends early when the data is that of the run before.
            A run's parameter of the same name overrides it.
        bucket_secret: The Secret whose AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY open the buckets
            of the data, of `serving_folder` and, for s3://, of the pipeline root, if the pods may
            not do so by themselves.
        environment: Further environment variables of every container: for s3:// AWS_REGION, which
            Kubeflow's launcher needs.
    """

    volume: str | None = None
    serving_folder: str | None = None
    resources: dict[str, ResourcesConfig] = dataclasses.field(default_factory=dict)
    training_job: TrainingJobConfig | None = None
    retries: int = 2
    skip_without_new_data: bool = True
    bucket_secret: str | None = None
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for field in ("volume", "bucket_secret"):
            value = getattr(self, field)
            if value is not None and not OBJECT_NAME.fullmatch(value):
                raise ValueError(
                    f"{field} must be a Kubernetes object's name, lower-case letters, digits, '-' "
                    f"and '.', got {value!r}"
                )
        if self.serving_folder is not None:
            check_bucket("serving_folder", self.serving_folder)
        if self.training_job and self.volume is None:
            raise ValueError(
                "volume must be given where training_job is: the workers and the Trainer share "
                "what is on it"
            )
        if not 0 <= self.retries <= 100:
            raise ValueError(f"retries must be in [0, 100], got {self.retries}")
        check_environment(self.environment)

    def resources_of(self, component: str) -> ResourcesConfig:
        """Returns what the pod of a component asks for."""
        return self.resources.get(component) or self.resources.get("default", ResourcesConfig())


def check_bucket(field: str, uri: str) -> None:
    """Raises ValueError unless it is a folder of a bucket that Kubeflow Pipelines opens."""
    scheme, separator, folder = uri.partition("://")
    if scheme + separator not in MIRRORS or not _IN_BUCKET.fullmatch(folder):
        raise ValueError(
            f"{field} must be gs://BUCKET/..., s3://BUCKET/... or minio://BUCKET/..., BUCKET of 3 "
            f"to 63 lower-case letters, digits, '-', '_' and '.', got {uri!r}"
        )


def check_place(field: str, place: str) -> None:
    """Raises ValueError if it is a URI, and not of a bucket's folder; a path is not looked at."""
    if "://" in place:
        check_bucket(field, place)


def is_in_bucket(path: str) -> bool:
    """Returns whether it is a bucket's URI, not a path."""
    return path.startswith(tuple(MIRRORS))
