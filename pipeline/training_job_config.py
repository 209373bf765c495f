"""The part of a configuration that has several workers train on Kubernetes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from components.training_job_spec import TrainingJobSpec, check_agreement
from model.training_config import TrainingConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingJobConfig:
    """Says how several workers train in a Job that the Trainer starts and follows.

    It goes with `training.strategy.name: multi_worker`. Amounts are one worker's.

    Args:
        workers: How many there are, 2 at least.
        image: What they run; the pipeline's image when not given.
        cpu: Cores, as Kubernetes writes them: `4`, `500m`.
        memory: Bytes: `16Gi`.
        accelerator: A device's resource name, such as `nvidia.com/gpu`.
        accelerators: How many of them.
        restarts: How often all workers may be started again after one of them died.
        node_selector: Labels that a node must have.
    """

    workers: int = 2
    image: str | None = None
    cpu: str | int | float = "4"
    memory: str | int = "16Gi"
    accelerator: str | None = None
    accelerators: int = 0
    restarts: int = 5
    node_selector: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        # What is not given yet does not matter: each value has a rule of its own.
        self.fields("pipeline:1", "volume", "/workspace")

    def check_training(self, training: TrainingConfig) -> None:
        """Does nothing if these workers can do this training.

        Raises:
            ValueError: The strategy is for one process, or the batch does not divide over them.
        """
        check_agreement(self.workers, self.accelerators, training)

    def fields(
        self,
        image: str,
        volume: str,
        mount_path: str,
        environment: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Returns the fields of a `TrainingJobSpec`, as the Trainer's `custom_config` has them.

        Args:
            image: The pipeline's image.
            volume: The claim that all tasks share.
            mount_path: Where they have it.
            environment: Further variables of every container.

        Raises:
            ValueError: A value is not what Kubernetes takes.
        """
        own = dataclasses.asdict(self) | {
            "image": self.image or image,
            "volume": volume,
            "mount_path": mount_path,
            "environment": dict(environment or {}),
        }
        return dataclasses.asdict(TrainingJobSpec(**own))
