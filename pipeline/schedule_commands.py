"""The commands of `gpt2-tfx kubeflow` that speak to a cluster: one run, and schedules."""

import argparse
import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kubeflow.cluster import Client
    from kubeflow.schedule import Submission


def add_schedule_parsers(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds `submit`, `schedule`, `list`, `pause`, `resume` and `delete` to a group of commands.

    Args:
        commands: What `ArgumentParser.add_subparsers` gave.
        common: The parser of options that every command has.
    """
    parents = [common, _cluster_options()]

    def add(name: str, command: object, description: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, parents=parents, help=description, description=description
        )
        added.set_defaults(command=command)
        return added

    added = add("submit", _submit, "Run a compiled pipeline once, now.")
    _add_submission_options(added)
    added.add_argument("--name", help="of the run; default: the pipeline's name and the time")

    added = add(
        "schedule",
        _schedule,
        "Run a compiled pipeline again and again, one run at a time. The same name once more "
        "replaces what it stood for; paused stays paused.",
    )
    _add_submission_options(added)
    _add_schedule_options(added)

    add("list", _list, "Tell the schedules, also those that were made elsewhere.")
    for name, command, description in (
        ("pause", _pause, "Start no more runs by a schedule; one that is going on goes on."),
        ("resume", _resume, "Start runs by a schedule again; one that was missed, at once."),
        ("delete", _delete, "Take a schedule away; its runs stay."),
    ):
        add(name, command, description).add_argument("name", metavar="NAME")


def _cluster_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group(
        "the cluster",
        "What is not given is found as kfp's client finds it: the variables KF_PIPELINES_..., the "
        "pod that this runs in, the current context of kubectl.",
    )
    group.add_argument("--host", metavar="URL", help="of the Kubeflow Pipelines API")
    group.add_argument("--namespace", help="yours, in a Kubeflow with several users")
    group.add_argument("--token-file", metavar="FILE", help="with a bearer token")
    group.add_argument("--ca-file", metavar="FILE", help="authorities of its certificate, in PEM")
    return parser


def _add_submission_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="what `gpt2-tfx kubeflow compile` wrote")
    parser.add_argument(
        "--pipeline-root",
        metavar="URI",
        help="gs://, s3:// or minio://, where the artifacts go; default: what it was compiled for",
    )
    parser.add_argument(
        "--parameter",
        action="append",
        default=[],
        metavar="name=value",
        help="a runtime parameter; may be given again",
    )
    parser.add_argument("--experiment", help="folder of runs; default: the pipeline's name")
    parser.add_argument("--service-account", metavar="NAME", help="default: the cluster's")


def _add_schedule_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="of the schedule")
    parser.add_argument(
        "--cron",
        required=True,
        metavar='"0 2 * * *"',
        help="when: minute, hour, day of month, month, day of week",
    )
    parser.add_argument(
        "--timezone",
        metavar="ZONE",
        help="where that is meant, such as Europe/Berlin; default: the cluster's own",
    )
    parser.add_argument(
        "--cluster-timezone",
        default="UTC",
        metavar="ZONE",
        help="cronScheduleTimezone in the cluster's ConfigMap pipeline-install-config, which KFP's "
        "API does not tell; default: UTC, as KFP's own",
    )


def _submit(options: argparse.Namespace) -> None:
    from kubeflow.schedule import check_not_blank, submit

    check_not_blank("name", options.name)
    submission = _submission(options)
    print(f"run {submit(_connect(options), submission, options.name)}")


def _schedule(options: argparse.Namespace) -> None:
    from kubeflow.cron import parse_cron
    from kubeflow.cron_timezone import in_cluster_time

    cron = in_cluster_time(
        parse_cron(options.cron),
        options.cluster_timezone if options.timezone is None else options.timezone,
        options.cluster_timezone,
        datetime.datetime.now(datetime.timezone.utc),
    )
    from kubeflow.schedule import check_not_blank, schedule

    check_not_blank("name", options.name)
    submission = _submission(options)
    changed = schedule(_connect(options), submission, options.name, cron)
    print(f"{changed}: {cron.six_fields()} (seconds first) in {options.cluster_timezone}'s time")


def _list(options: argparse.Namespace) -> None:
    from kubeflow.schedule import find

    rows = [("NAME", "STATE", "CRON (SECONDS FIRST)", "CREATED")]
    for each in find(_connect(options)):
        state = "active" if each.active else "paused"
        created = f"{each.created_at:%Y-%m-%d %H:%M} UTC" if each.created_at else "-"
        rows.append((each.name, state, each.trigger, created))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _pause(options: argparse.Namespace) -> None:
    from kubeflow.schedule import pause

    pause(_connect(options), options.name)
    print(f"{options.name} is paused")


def _resume(options: argparse.Namespace) -> None:
    from kubeflow.schedule import resume

    resume(_connect(options), options.name)
    print(f"{options.name} is active")


def _delete(options: argparse.Namespace) -> None:
    from kubeflow.schedule import delete

    delete(_connect(options), options.name)
    print(f"{options.name} is deleted")


def _submission(options: argparse.Namespace) -> "Submission":
    """Returns what is asked for, checked: nothing has been sent by then."""
    from kubeflow.pipeline_file import parameter_values, read_pipeline_file
    from kubeflow.schedule import Submission

    pipeline = read_pipeline_file(options.file)
    # Always told to the cluster: not every version of the backend reads the file's.
    root = pipeline.pipeline_root if options.pipeline_root is None else options.pipeline_root
    if root is None:
        raise ValueError(f"pipeline root must be given: {options.file} has none")
    return Submission(
        pipeline=pipeline,
        pipeline_root=root,
        parameters=parameter_values(pipeline, options.parameter),
        experiment=options.experiment,
        service_account=options.service_account,
    )


def _connect(options: argparse.Namespace) -> "Client":
    from kubeflow.cluster import connect

    return connect(options.host, options.namespace, options.token_file, options.ca_file)
