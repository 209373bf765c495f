"""The part of a configuration that has several workers train on Kubernetes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from components.pod_resources import check_image
from components.training_job_spec import TrainingJobSpec, TrainingPods, check_agreement
from model.training_config import TrainingConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingJobConfig(TrainingPods):
    """Says how several workers train in a Job that the Trainer starts and follows.

    It goes with `training.strategy.name: multi_worker` and `kubeflow.volume`, which the workers
    share with the Trainer: checkpoints and the Job's inputs and outputs lie on it.

    Args:
        image: What the workers run; the pipeline's image when not given.
        workers, cpu, memory, ...: As `TrainingPods` has them.

    Raises:
        ValueError: A value is not what Kubernetes takes.
    """

    image: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image is not None:
            check_image("image", self.image)

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
        spec = TrainingJobSpec(
            **dataclasses.asdict(self) | {"image": self.image or image},
            volume=volume,
            mount_path=mount_path,
            environment=dict(environment or {}),
        )
        return dataclasses.asdict(spec)
