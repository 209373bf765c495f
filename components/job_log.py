"""What is to be seen of a Job from outside: its state, its pods', and the first one's log."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from components.kubernetes_api import ApiError, KubernetesApi

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
        self._problems: dict[str, int | None] = {}
        self._asked: dict[str, float] = {}
        self._last_times: dict[str, str] = {}
        self._replaced: set[str] = set()

    def show(self, job: dict[str, Any]) -> None:
        """Says how the Job and its pods have changed, and the new lines of the first pod's log.

        What the API does not tell is said to be missing, and is no error: a log cannot be read
        while its node is away, and how the Job ends does not hang on it.
        """
        status = job.get("status", {})
        counts = ", ".join(f"{status.get(key) or 0} {key}" for key in _COUNTS)
        self._say_change(f"training Job {self._name}", counts)
        pods = []
        with self._saying_problems(f"the pods of training Job {self._name} can't be listed"):
            pods = self._api.list_pods(self._name)
        for pod in pods:
            self._say_change(_title(pod), _state(pod))
        chiefs = [pod["metadata"]["name"] for pod in pods if _index(pod) == 0]
        for chief in chiefs:
            if chief not in self._replaced:
                with self._saying_problems(f"the log of {chief} can't be read"):
                    self._show_log(chief)
        # One that has a successor was read once more, for its last lines, and never again.
        self._replaced.update(chiefs[:-1])

    @contextlib.contextmanager
    def _saying_problems(self, what: str) -> Iterator[None]:
        """Has an error of the API said in place of raised, unless it was the same the last time."""
        try:
            yield
        except ApiError as error:
            # Compared by number: its words have the query in them, which differs each time.
            if self._problems.get(what, 0) != error.status:
                self._problems[what] = error.status
                self._say(f"{what}: {error}")
        else:
            self._problems.pop(what, None)

    def _say_change(self, name: str, state: str) -> None:
        if self._states.get(name) != state:
            self._states[name] = state
            self._say(f"{name}: {state}")

    def _show_log(self, pod: str) -> None:
        now = time.monotonic()
        options = {}
        # The whole log at first: where the Job is an earlier attempt's it says how it came so far.
        if pod in self._last_times:
            options["since_seconds"] = int(now - self._asked[pod]) + _OVERLAP_SECONDS
        lines = self._api.read_log(pod, timestamps=True, **options)
        self._asked[pod] = now
        for line in lines:
            stamp, _, text = line.partition(" ")
            stamp = stamp.rstrip("Z")  # so that 12:00:00.5Z sorts before 12:00:00.51Z
            if stamp > self._last_times.get(pod, ""):
                self._last_times[pod] = stamp
                # Of a progress line, which was drawn again and again, the last state.
                self._say("worker 0 | " + text.rstrip().rpartition("\r")[2])


def failure_report(api: KubernetesApi, name: str) -> str:
    """Returns the last lines of the worker that failed first in the last attempt, and all states.

    The others fail for want of it, and their logs say no more than that. What the API does not tell
    is said to be missing.
    """
    try:
        pods = api.list_pods(name)
    except ApiError as error:
        return f"its pods can't be listed: {error}"
    newest = {_index(pod): pod for pod in pods}  # the oldest come first
    failed = [pod for pod in newest.values() if pod["status"].get("phase") == "Failed"]
    if not failed:
        return "no pod of it is left to say why"
    failed.sort(key=_finished_at)
    lines = [f"{_title(pod)}: {_state(pod)}" for pod in failed]
    first = failed[0]["metadata"]["name"]
    try:
        log = api.read_log(first, tail_lines=_LAST_LINES) or ["(it has no log)"]
    except ApiError as error:
        log = [f"its log can't be read: {error}"]
    return "\n".join([*lines, f"The last lines of {first}:", *log])


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
