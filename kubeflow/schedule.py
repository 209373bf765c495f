"""Runs of a compiled pipeline on a cluster, once or on a schedule that goes by a name.

KFP's recurring runs have names that need not be unique, and cannot be changed. Here a name is one
schedule: what is done again with it replaces what was there.
"""

import dataclasses
import datetime
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kubeflow.cluster import Client, ClusterError
from kubeflow.cron import Cron
from kubeflow.pipeline_file import PipelineFile
from pipeline.kubeflow_config import check_bucket

# How each recurring run's description begins; what follows is the state that it was made for and,
# if one was asked for, the service account: the cluster tells its default like any other.
_MADE_FOR, _ACCOUNT = "by gpt2-tfx, to be ", ", as "
_ACTIVE, _PAUSED = "active", "paused"


@dataclasses.dataclass(frozen=True)
class Submission:
    """What a run is made from, and where it is filed.

    Args:
        pipeline: The compiled file.
        pipeline_root: gs://, s3:// or minio://, under which its artifacts go.
        parameters: Values for its runtime parameters.
        experiment: KFP's folder of runs; the pipeline's name if not given. It is made if needed.
        service_account: What the pods run as; the cluster's default if not given.
    """

    pipeline: PipelineFile
    pipeline_root: str
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    experiment: str | None = None
    service_account: str | None = None

    def __post_init__(self) -> None:
        check_bucket("pipeline root", self.pipeline_root)
        for field in ("experiment", "service_account"):
            check_not_blank(field, getattr(self, field))


@dataclasses.dataclass(frozen=True)
class Schedule:
    """One recurring run as the cluster has it."""

    id: str
    name: str
    trigger: str  # KFP's six fields of cron, or `every N s`
    active: bool
    created_at: datetime.datetime | None
    made_for: str | None  # None if it was made elsewhere
    settings: Mapping[str, Any]


def check_not_blank(field: str, value: str | None) -> None:
    """Raises ValueError if there is a value, but nothing in it."""
    if value is not None and not value.strip():
        raise ValueError(f"{field} is {value!r}: must not be blank")


def submit(client: Client, submission: Submission, name: str | None = None) -> str:
    """Starts one run and returns its ID. A file that was sent before is not sent again."""
    pipeline_id, version_id = _uploaded(client, submission.pipeline)
    if name is None:
        started = datetime.datetime.now(datetime.timezone.utc)
        name = f"{submission.pipeline.name} {started:%Y-%m-%d %H:%M:%S} UTC"
    run = client.run_pipeline(
        experiment_id=_experiment(client, submission),
        job_name=name,
        params=dict(submission.parameters),
        pipeline_id=pipeline_id,
        version_id=version_id,
        pipeline_root=submission.pipeline_root,
        service_account=submission.service_account,
    )
    return str(run.run_id)


def schedule(client: Client, submission: Submission, name: str, cron: Cron) -> str:
    """Has the cluster run a pipeline by a cron line; returns what that changed, in words.

    A schedule of the same name is replaced, and stays paused if it was; one that is the same in
    all stays. Runs that are going on are left to end.
    """
    pipeline_id, version_id = _uploaded(client, submission.pipeline)
    wanted = {
        "experiment_id": _experiment(client, submission),
        "cron_expression": cron.six_fields(),
        "max_concurrency": 1,
        "no_catchup": True,
        "params": dict(submission.parameters),
        "pipeline_id": pipeline_id,
        "version_id": version_id,
        "pipeline_root": submission.pipeline_root,
        "service_account": submission.service_account,
    }
    before = find(client, name)
    state = _next_state(before)
    if len(before) == 1 and before[0].settings == wanted:
        return f"{name} is unchanged and {state}"
    _replace(client, name, before, wanted, state)
    return f"{name} is {'replaced' if before else 'new'} and {state}"


def pause(client: Client, name: str) -> None:
    """Starts no more runs by that name, until `resume`; a run that is going on is left to end."""
    found = _existing(client, name)
    for each in found:
        client.disable_recurring_run(each.id)
    _delete(client, found[:-1])


def resume(client: Client, name: str) -> None:
    """Starts runs by that name again; the last one that was missed while it was paused, at once."""
    *older, newest = _existing(client, name)
    for each in older:
        client.disable_recurring_run(each.id)
    client.enable_recurring_run(newest.id)
    _delete(client, older)


def delete(client: Client, name: str) -> None:
    """Takes the schedule away; its runs and the uploaded pipeline stay."""
    _delete(client, _existing(client, name))


def find(client: Client, name: str | None = None) -> list[Schedule]:
    """Returns the schedules of exactly that name, or all, the oldest first."""
    pages = _all(client.list_recurring_runs, "recurring_runs", name, namespace=client.namespace)
    return sorted(
        (_schedule(each) for each in pages),
        key=lambda each: (each.created_at is None, each.created_at, each.id),
    )


def _existing(client: Client, name: str) -> list[Schedule]:
    found = find(client, name)
    if not found:
        known = ", ".join(sorted({each.name for each in find(client)}))
        raise ValueError(f"name is {name!r}: must be a schedule's: {known or 'there is none'}")
    return found


def _replace(
    client: Client, name: str, before: list[Schedule], wanted: dict[str, Any], state: str
) -> None:
    """Puts a new recurring run in the place of all of its name.

    KFP has no request that does this at once, so the order decides what a failure between two
    requests leaves behind:

    1. The new one is made, disabled: what the cluster might refuse, it refuses here, and the old
       one runs on as if nothing had been asked.
    2. The old one is disabled, 3. the new one enabled: the two are never enabled together, since
       both would train and push the same night. A start that falls due in between is not lost:
       the scheduler counts from when the new one was made. (One that falls due between 1 and 2, a
       fraction of a second, comes twice for that reason.)
    4. The old one is deleted, last, so that the name never stands for nothing.

    After a failure there are several of the name, one of them enabled at most; whoever says the
    same again takes all of them for old. Their descriptions say if one is to be active.
    """
    account = wanted["service_account"]
    description = f"{_MADE_FOR}{state}{_ACCOUNT + account if account else ''}"
    new = client.create_recurring_run(
        job_name=name, description=description, enabled=False, **wanted
    )
    try:
        for old in before:
            if old.active:
                client.disable_recurring_run(old.id)
        if state == _ACTIVE:
            client.enable_recurring_run(new.recurring_run_id)
        _delete(client, before)
    except ClusterError as error:
        raise ClusterError(
            f"{error}; {name} is half replaced and may be paused: give the same command again"
        ) from error


def _next_state(before: list[Schedule]) -> str:
    """Returns what the next of a name is to be: active, unless somebody paused it."""
    if not before or any(each.active for each in before):
        return _ACTIVE
    if len(before) == 1:
        return _PAUSED
    return before[-1].made_for or _PAUSED  # a replacement that did not come to its end


def _delete(client: Client, schedules: list[Schedule]) -> None:
    for each in schedules:
        # Otherwise Kubernetes deletes, with a recurring run, the run that is going on (KFP's
        # issues 7421 and 12573). kfp's own method does not have the option yet.
        client.recurring_runs.recurring_run_service_delete_recurring_run(
            recurring_run_id=each.id, propagation_policy="ORPHAN"
        )


def _uploaded(client: Client, pipeline: PipelineFile) -> tuple[str, str]:
    """Returns the IDs of the pipeline and of its version with the file's content."""
    description = f"sha256 {pipeline.sha256}"
    names = _all(client.list_pipelines, "pipelines", pipeline.name, namespace=client.namespace)
    # An upload that makes a pipeline makes its first version, with the same description.
    known = next(names, None) or client.upload_pipeline(
        pipeline.path, pipeline.name, description=description, namespace=client.namespace
    )
    versions = _all(
        client.list_pipeline_versions, "pipeline_versions", pipeline_id=known.pipeline_id
    )
    same = (version for version in versions if version.description == description)
    version = next(same, None) or client.upload_pipeline_version(
        pipeline.path,
        f"{pipeline.name} {pipeline.sha256[:12]}",
        pipeline_id=known.pipeline_id,
        description=description,
    )
    return known.pipeline_id, version.pipeline_version_id


def _experiment(client: Client, submission: Submission) -> str:
    name = submission.experiment or submission.pipeline.name
    return str(client.create_experiment(name, namespace=client.namespace).experiment_id)


def _all(
    list_page: Callable[..., Any], field: str, name: str | None = None, **which: Any
) -> Iterator[Any]:
    """Gives what all pages list, or what of it has exactly that name."""
    if name is not None:
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        which["filter"] = json.dumps({"predicates": [predicate]})
    token = ""
    while True:
        page = list_page(page_token=token, page_size=100, **which)
        for each in getattr(page, field) or []:
            if name is None or each.display_name == name:
                yield each
        token = page.next_page_token
        if not token:
            return


def _schedule(run: Any) -> Schedule:
    """Returns what matters here of kfp's V2beta1RecurringRun, any part of which may be missing."""

    def part(path: str) -> Any:
        value = run
        for step in path.split("."):
            value = getattr(value, step, None)
        return value

    cron = part("trigger.cron_schedule.cron")
    made_for, _, account = (run.description or "").removeprefix(_MADE_FOR).partition(_ACCOUNT)
    return Schedule(
        id=run.recurring_run_id,
        name=run.display_name,
        trigger=cron or f"every {part('trigger.periodic_schedule.interval_second')} s",
        active=run.status == "ENABLED",
        created_at=run.created_at,
        made_for=made_for if made_for in (_ACTIVE, _PAUSED) else None,
        settings={
            "experiment_id": run.experiment_id,
            "cron_expression": cron,
            "max_concurrency": int(run.max_concurrency or 0),  # JSON has 64-bit integers as text
            "no_catchup": bool(run.no_catchup),
            "params": part("runtime_config.parameters") or {},
            "pipeline_id": part("pipeline_version_reference.pipeline_id"),
            "version_id": part("pipeline_version_reference.pipeline_version_id"),
            "pipeline_root": part("runtime_config.pipeline_root"),
            "service_account": account or None,
        },
    )
