"""What is to be seen of a Job from outside: its state, its pods', and the first one's log."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from components.kubernetes_api import KubernetesApi

_INDEX = "batch.kubernetes.io/job-completion-index"  # an annotation of the Job's pods
_LAST_LINES = 30

_COUNTS = ("active", "succeeded", "failed")  # of pods, in the Job's status

# Logs are asked for by age, in the seconds of a node's clock; lines seen before are left out.
_OVERLAP_SECONDS = 60


class JobLog:
    """Says what is new about a Job each time that it is shown.

    Args:
        api: The cluster.
        name: The Job's name.
        say: Takes a line.
    """

    def __init__(self, api: KubernetesApi, name: str, say: Callable[[str], None]) -> None:
        self._api = api
        self._name = name
        self._say = say
        self._states: dict[str, str] = {}
        self._asked = time.monotonic()
        self._last_times: dict[str, str] = {}

    def show(self, job: dict[str, Any] | None) -> None:
        """Says how the Job and its pods have changed, and the new lines of the first pod's log."""
        status = {} if job is None else job.get("status", {})
        counts = ", ".join(f"{status.get(key) or 0} {key}" for key in _COUNTS)
        self._say_change(f"training Job {self._name}", counts)
        pods = self._api.list_pods(self._name)
        for pod in pods:
            self._say_change(_title(pod), _state(pod))
        now = time.monotonic()
        for pod in pods:
            if _index(pod) == 0:
                since = int(now - self._asked) + _OVERLAP_SECONDS
                self._show_log(pod["metadata"]["name"], since)
        self._asked = now

    def _say_change(self, name: str, state: str) -> None:
        if self._states.get(name) != state:
            self._states[name] = state
            self._say(f"{name}: {state}")

    def _show_log(self, pod: str, since: int) -> None:
        # The whole log at first: where the Job is an earlier attempt's it says how it came so far.
        options = {"since_seconds": since} if pod in self._last_times else {}
        for line in self._api.read_log(pod, timestamps=True, **options):
            stamp, _, text = line.partition(" ")
            stamp = stamp.rstrip("Z")  # so that 12:00:00.5Z sorts before 12:00:00.51Z
            if stamp > self._last_times.get(pod, ""):
                self._last_times[pod] = stamp
                # Of a progress line, which was drawn again and again, the last state.
                self._say("worker 0 | " + text.rstrip().rpartition("\r")[2])


def failure_report(api: KubernetesApi, name: str) -> str:
    """Returns the last lines of the worker that failed first in the last attempt, and all states.

    The others fail for want of it, and their logs say no more than that.
    """
    newest = {_index(pod): pod for pod in api.list_pods(name)}  # the oldest come first
    failed = [pod for pod in newest.values() if pod["status"].get("phase") == "Failed"]
    if not failed:
        return "no pod of it is left to say why"
    failed.sort(key=_finished_at)
    lines = [f"{_title(pod)}: {_state(pod)}" for pod in failed]
    first = failed[0]["metadata"]["name"]
    log = api.read_log(first, tail_lines=_LAST_LINES)
    return "\n".join([*lines, f"The last lines of {first}:", *(log or ["(it has no log)"])])


def _title(pod: dict[str, Any]) -> str:
    return f"worker {_index(pod)}, pod {pod['metadata']['name']}"


def _index(pod: dict[str, Any]) -> int:
    return int(pod["metadata"].get("annotations", {}).get(_INDEX, -1))


def _state(pod: dict[str, Any]) -> str:
    """Returns a pod's phase and what is to be said about it, such as `Pending, ErrImagePull`."""
    return ", ".join([pod["status"].get("phase", "Unknown"), *_details(pod["status"])])


def _details(status: dict[str, Any]) -> Iterator[str]:
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield f"{condition.get('reason')}: {condition.get('message')}"
    for container in status.get("containerStatuses") or []:
        waiting = container.get("state", {}).get("waiting")
        if waiting:
            yield ": ".join(filter(None, (waiting.get("reason"), waiting.get("message"))))
        ended = container.get("state", {}).get("terminated")
        if ended:
            yield f"{ended.get('reason')}, exit code {ended.get('exitCode')}"


def _finished_at(pod: dict[str, Any]) -> str:
    """Returns when the pod's container ended; what never ran comes last."""
    times = [
        container["state"]["terminated"].get("finishedAt") or "~"
        for container in pod["status"].get("containerStatuses") or []
        if container.get("state", {}).get("terminated")
    ]
    return min(times, default="~")
