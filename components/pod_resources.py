"""What a container asks of Kubernetes: the rules, for whoever describes one."""

import re

# apimachinery/pkg/api/resource/quantity.go, signs left out, and the name of what a device plugin
# offers, such as nvidia.com/gpu.
_AMOUNT = re.compile(r"(\d+\.?\d*|\.\d+)([eE][-+]?\d+|[numkMGTPE]|[KMGTPE]i)?", re.ASCII)
_DEVICE = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


def check_pod_resources(
    cpu: str | int | float, memory: str | int, accelerator: str | None, accelerators: int
) -> tuple[str, str]:
    """Returns cpu and memory as Kubernetes writes them.

    Args:
        cpu: Cores: `2`, `0.5`, `500m`.
        memory: Bytes: `8Gi`, `512M`.
        accelerator: A device's resource name, such as `nvidia.com/gpu`.
        accelerators: How many of them.

    Raises:
        ValueError: A value is not what Kubernetes takes, or one of the last two is given alone.
    """
    for field, value in (("cpu", cpu), ("memory", memory)):
        amount = _AMOUNT.fullmatch(str(value))
        if not amount or not float(amount[1]):
            raise ValueError(
                f"{field} must be an amount above zero as Kubernetes writes it, such as 2, 500m or "
                f"8Gi, got {str(value)!r}"
            )
    if accelerators < 0:
        raise ValueError(f"accelerators must be >= 0, got {accelerators}")
    if (accelerator is None) != (accelerators == 0):
        raise ValueError(
            f"accelerator and accelerators must be given together, got {accelerator!r} and "
            f"{accelerators}"
        )
    if accelerator is not None and not _DEVICE.fullmatch(accelerator):
        raise ValueError(
            f"accelerator must be a resource's name such as nvidia.com/gpu, got {accelerator!r}"
        )
    return str(cpu), str(memory)
