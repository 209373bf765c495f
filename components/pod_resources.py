"""What a container is made from and asks of Kubernetes: the rules, for whoever describes one."""

import dataclasses
import re
from collections.abc import Mapping

# An object's name: kubernetes.io/docs/concepts/overview/working-with-objects/names
OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# apimachinery/pkg/api/resource/quantity.go, signs left out, and the name of what a device plugin
# offers, such as nvidia.com/gpu.
_AMOUNT = re.compile(r"(\d+\.?\d*|\.\d+)([eE][-+]?\d+|[numkMGTPE]|[KMGTPE]i)?", re.ASCII)
_DEVICE = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
# github.com/distribution/reference: host:port/path:tag@digest
_IMAGE = re.compile(
    r"([a-zA-Z0-9][a-zA-Z0-9.-]*(:\d+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*"
    r"(?P<tag>:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?P<digest>@sha256:[0-9a-f]{64})?"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PodResources:
    """Says what a pod asks for, and is held to.

    Args:
        cpu: Cores, as Kubernetes writes them: `2`, `0.5`, `500m`. Kept as text.
        memory: Bytes: `8Gi`, `512M`. Kept as text.
        accelerator: A device's resource name, such as `nvidia.com/gpu`.
        accelerators: How many of them.

    Raises:
        ValueError: A value is not what Kubernetes takes, or one of the last two is given alone.
    """

    cpu: str | int | float
    memory: str | int
    accelerator: str | None = None
    accelerators: int = 0

    def __post_init__(self) -> None:
        for field in ("cpu", "memory"):
            value = str(getattr(self, field))
            amount = _AMOUNT.fullmatch(value)
            if not amount or not float(amount[1]):
                raise ValueError(
                    f"{field} must be an amount above zero as Kubernetes writes it, such as 2, "
                    f"500m or 8Gi, got {value!r}"
                )
            object.__setattr__(self, field, value)
        if self.accelerators < 0:
            raise ValueError(f"accelerators must be >= 0, got {self.accelerators}")
        if (self.accelerator is None) != (self.accelerators == 0):
            raise ValueError(
                "accelerator and accelerators must be given together, got "
                f"{self.accelerator!r} and {self.accelerators}"
            )
        if self.accelerator is not None and not _DEVICE.fullmatch(self.accelerator):
            raise ValueError(
                "accelerator must be a resource's name such as nvidia.com/gpu, "
                f"got {self.accelerator!r}"
            )


def check_environment(environment: Mapping[str, str]) -> None:
    """Raises ValueError unless the keys are environment variables' names."""
    for name in environment:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"environment must have variables' names as keys, got {name!r}")


def check_image(field: str, image: str) -> None:
    """Does nothing if an image is named with its tag or digest.

    Raises:
        ValueError: It is not: without a tag every node would run what it takes for the latest.
    """
    parts = _IMAGE.fullmatch(image)
    if not parts or not (parts["tag"] or parts["digest"]):
        raise ValueError(
            f"{field} must be an image with a tag or digest, such as registry/name:1.0, "
            f"got {image!r}"
        )
