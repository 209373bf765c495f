"""What a training Job of several workers on Kubernetes is made of."""

import dataclasses
from typing import Any

from components.pod_resources import OBJECT_NAME, PodResources, check_environment, check_image
from model.training_config import TrainingConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingPods(PodResources):
    """Says how many workers there are and what each asks for; each amount is one worker's.

    Args:
        workers: How many train together, 2 at least.
        cpu, memory, accelerator, accelerators: As `PodResources` has them.
        restarts: How often all workers may be started again after one of them died.
        node_selector: Labels that a node must have.

    Raises:
        ValueError: A value is not what Kubernetes takes.
    """

    workers: int = 2
    cpu: str | int | float = "4"
    memory: str | int = "16Gi"
    restarts: int = 5
    node_selector: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        # 100: the Job's name with a worker's number behind it must stay a host's name.
        if not 2 <= self.workers <= 100:
            raise ValueError(f"workers must be in [2, 100], got {self.workers}")
        if not 0 <= self.restarts <= 100:
            raise ValueError(f"restarts must be in [0, 100], got {self.restarts}")
        super().__post_init__()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingJobSpec(TrainingPods):
    """Describes the Job.

    Args:
        image: What the workers run: the pipeline's image.
        volume: The PersistentVolumeClaim that all workers and the Trainer's pod have, at the same
            path. Where they are on several nodes, its access mode must be ReadWriteMany.
        mount_path: That path.
        environment: Further environment variables.
        workers, cpu, memory, ...: As `TrainingPods` has them.

    Raises:
        ValueError: A value is not what Kubernetes takes.
    """

    image: str
    volume: str
    mount_path: str = "/workspace"
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_image("image", self.image)
        if not OBJECT_NAME.fullmatch(self.volume):
            raise ValueError(
                "volume must be a PersistentVolumeClaim's name, lower-case letters, digits, '-' "
                f"and '.', got {self.volume!r}"
            )
        if not self.mount_path.startswith("/") or self.mount_path.rstrip("/") == "":
            raise ValueError(
                f"mount_path must be an absolute path below /, got {self.mount_path!r}"
            )
        check_environment(self.environment)


def read_spec(fields: dict[str, Any], training: TrainingConfig) -> TrainingJobSpec:
    """Returns the Job for this training, from the fields of `TrainingJobSpec`.

    Raises:
        ValueError: A field is unknown, missing or out of range, or Job and training don't agree.
    """
    try:
        spec = TrainingJobSpec(**fields)
    except TypeError as error:  # names the field that is unknown or missing
        raise ValueError(f"job must hold the fields of TrainingJobSpec: {error}") from error
    check_agreement(spec.workers, spec.accelerators, training)
    return spec


def check_agreement(workers: int, accelerators: int, training: TrainingConfig) -> None:
    """Does nothing if so many workers can do this training.

    Args:
        workers: How many there are.
        accelerators: What each of them has.
        training: How the model is trained.

    Raises:
        ValueError: Its strategy is for one process, or its batch does not divide over the workers.
    """
    if training.strategy.name != "multi_worker":
        raise ValueError(
            "training.strategy.name must be 'multi_worker' where a training job has several "
            f"workers, got {training.strategy.name!r}"
        )
    shares = workers * max(accelerators, 1) * training.accumulation_steps
    if training.global_batch_size % shares:
        raise ValueError(
            f"training.global_batch_size must be a multiple of {shares}, which is {workers} "
            f"workers times {max(accelerators, 1)} devices times "
            f"accumulation_steps={training.accumulation_steps}, got {training.global_batch_size}"
        )
