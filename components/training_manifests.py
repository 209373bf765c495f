"""The manifests of a training Job: an Indexed Job and the headless Service that names its pods."""

from typing import Any

from components.training_job_spec import TrainingJobSpec

CONTAINER = "worker"

# What a worker ends with, as the Job's failure policy knows it; beside them, 1 is any other error.
BAD_INPUT = 2  # it would end so every time
STOPPED = 128 + 15  # by a signal, after a checkpoint

# The first worker's; the second listens on the next one, and so on. Pods have addresses of their
# own and could share one port, but so several workers can run on one machine, too.
_PORT = 2222

# Seconds between SIGTERM and SIGKILL: for the step that a worker is in and a checkpoint.
_GRACE_SECONDS = 300

# For so many seconds a Job that has ended is kept, with the logs of its pods.
_KEPT_SECONDS = 24 * 60 * 60


def job_manifest(name: str, spec: TrainingJobSpec, task_file: str) -> dict[str, Any]:
    """Returns the Job.

    Args:
        name: Its name, at most 60 characters, and the Service's.
        spec: What it is made of.
        task_file: What the workers do, on the volume; see `components.training_task`.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": _labels()},
        "spec": {
            # Pod i is called <name>-<i>.<service>, whichever attempt it is.
            "completionMode": "Indexed",
            "completions": spec.workers,
            "parallelism": spec.workers,
            # When one worker dies the others fail too, and each of them counts.
            "backoffLimit": spec.restarts * spec.workers,
            "podFailurePolicy": {"rules": _failure_rules()},
            "ttlSecondsAfterFinished": _KEPT_SECONDS,
            "template": {
                "metadata": {
                    # Kubeflow's namespaces have Istio put a proxy into each pod. It would not end
                    # with the training, and it cuts the workers' connections.
                    "labels": _labels() | {"sidecar.istio.io/inject": "false"}
                },
                "spec": _pod(name, spec, task_file),
            },
        },
    }


def service_manifest(name: str, owner: str | None = None) -> dict[str, Any]:
    """Returns the Service, whose only use is that the Job's pods have names.

    Args:
        name: The Job's name.
        owner: The Job's uid, for Kubernetes to delete the Service with it at the latest.
    """
    metadata: dict[str, Any] = {"name": name, "labels": _labels()}
    if owner is not None:
        job = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": owner}
        metadata["ownerReferences"] = [job]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "clusterIP": "None",
            # The workers look for each other before any of them is what Kubernetes calls ready.
            "publishNotReadyAddresses": True,
            "selector": {"job-name": name},  # a label that the Job gives to its pods
        },
    }


def _labels() -> dict[str, str]:
    return {"app.kubernetes.io/name": "gpt2-tfx", "app.kubernetes.io/component": "training"}


def _failure_rules() -> list[dict[str, Any]]:
    """Returns what Kubernetes 1.26 and newer do about a pod that failed; the first match counts."""

    def on_exit(code: int) -> dict[str, Any]:
        return {"containerName": CONTAINER, "operator": "In", "values": [code]}

    disrupted = {"type": "DisruptionTarget", "status": "True"}
    return [
        {"action": "FailJob", "onExitCodes": on_exit(BAD_INPUT)},
        # Neither a pod that was evicted nor its peers, which stopped with it, have done wrong.
        {"action": "Ignore", "onPodConditions": [disrupted]},
        {"action": "Ignore", "onExitCodes": on_exit(STOPPED)},
    ]


def _pod(name: str, spec: TrainingJobSpec, task_file: str) -> dict[str, Any]:
    limits = {"cpu": str(spec.cpu), "memory": str(spec.memory)}
    if spec.accelerator is not None:
        limits[spec.accelerator] = str(spec.accelerators)
    pod: dict[str, Any] = {
        "subdomain": name,
        # The failure policy demands it. Failed pods, and their logs, stay as long as the Job.
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "automountServiceAccountToken": False,  # workers ask nothing of Kubernetes
        "containers": [
            {
                "name": CONTAINER,
                "image": spec.image,
                "command": ["python", "-m", "components.training_worker"],
                "args": [
                    task_file,
                    f"--hosts={name}-{{index}}.{name}",
                    f"--workers={spec.workers}",
                    f"--port={_PORT}",
                ],
                "env": [
                    {"name": key, "value": value}
                    for key, value in {"PYTHONUNBUFFERED": "1", **spec.environment}.items()
                ],
                "resources": {"limits": limits},  # requests are the same where not given
                "volumeMounts": [{"name": "workspace", "mountPath": spec.mount_path}],
            }
        ],
        "volumes": [
            {"name": "workspace", "persistentVolumeClaim": {"claimName": spec.volume}},
        ],
    }
    if spec.node_selector:
        pod["nodeSelector"] = spec.node_selector
    return pod
