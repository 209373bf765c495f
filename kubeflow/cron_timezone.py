"""A cron line that is meant in one time zone, written in the one that a cluster's scheduler keeps.

KFP has no time zone for a schedule: its scheduler reads every cron line in the zone that its own
environment variable CRON_SCHEDULE_TIMEZONE names (kubeflow/pipelines issue 2653), which comes from
cronScheduleTimezone in the ConfigMap pipeline-install-config and is UTC unless somebody changed it.
Its parser refuses a line that begins with CRON_TZ= or TZ= (robfig/cron issue 148: from version 2
on; KFP has version 1). So the line itself must be moved, which is exact or an error.
"""

import dataclasses
import datetime
import itertools
from zoneinfo import ZoneInfo

from kubeflow.cron import Cron, CronField

_DAY = 24 * 60  # minutes
# A zone's rules are looked at for so long; all that have summer time show it within a year.
_LOOKED_AT = datetime.timedelta(days=2 * 366)


def in_cluster_time(
    cron: Cron, timezone: str, cluster_timezone: str, now: datetime.datetime
) -> Cron:
    """Returns the line that means the same instants to a scheduler in another time zone.

    Args:
        cron: The line as it is meant.
        timezone: Where it is meant, such as Europe/Berlin.
        cluster_timezone: What the scheduler keeps.
        now: From when on it must be right; must have a time zone.

    Raises:
        ValueError: a zone does not exist, or no single line means the same, as when the clocks of
            one zone change and the other's do not.
    """
    zone = _zone("timezone", timezone)
    cluster = _zone("cluster timezone", cluster_timezone)
    lines = {_shifted(cron, ahead) for ahead in _minutes_ahead(zone, cluster, now)}
    line = lines.pop()
    if lines or line is None:
        clocks = "change at other times than" if lines else "differ from"
        raise ValueError(
            f"timezone is {timezone!r}, whose clocks {clocks} those of the cluster's scheduler, "
            f"{cluster_timezone!r}: cron {cron.six_fields()[2:]!r} must mean the same instants in "
            f"one line of {cluster_timezone}'s time, and cannot; give it in {cluster_timezone}'s "
            f"time, or set cronScheduleTimezone in the cluster's ConfigMap pipeline-install-config "
            f"to {timezone} and say so by --cluster-timezone"
        )
    return line


def _zone(field: str, name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, a path out of the database, a folder in it
        raise ValueError(
            f"{field} is {name!r}: must be a name of the IANA database, such as Europe/Berlin"
        ) from None


def _minutes_ahead(zone: ZoneInfo, cluster: ZoneInfo, now: datetime.datetime) -> set[int]:
    """Returns by how much the first zone's clocks are ahead, each value that is to come.

    Every hour is looked at, since two zones may both change their clocks, but not at once.
    """
    hours = int(_LOOKED_AT / datetime.timedelta(hours=1))
    start = now.astimezone(datetime.timezone.utc)
    instants = (start + datetime.timedelta(hours=hour) for hour in range(hours))
    return {
        round((_offset(instant, zone) - _offset(instant, cluster)).total_seconds() / 60)
        for instant in instants
    }


def _offset(instant: datetime.datetime, zone: ZoneInfo) -> datetime.timedelta:
    return instant.astimezone(zone).utcoffset() or datetime.timedelta()


def _shifted(cron: Cron, ahead: int) -> Cron | None:
    """Returns the line for clocks that are so many minutes behind, None if there is none."""
    meant = itertools.product(cron.hour.values, cron.minute.values)
    times = [divmod(hour * 60 + minute - ahead, _DAY) for hour, minute in meant]
    hours = {time // 60 for _, time in times}
    minutes = {time % 60 for _, time in times}
    if len(times) != len(hours) * len(minutes):
        return None  # as 9:00 and 10:00, but 9:30 alone
    dates_are_open = cron.day_of_month.is_every and cron.month.is_every
    days = {day for day, _ in times}
    week = cron.day_of_week
    if days != {0} and not (dates_are_open and week.is_every):
        if len(days) > 1 or not dates_are_open:
            return None  # the last day of a month has no number of its own
        (by,) = days
        week = _field({(day + by) % 7 for day in week.values}, range(7), week)
    return dataclasses.replace(
        cron,
        hour=_field(hours, range(24), cron.hour),
        minute=_field(minutes, range(60), cron.minute),
        day_of_week=week,
    )


def _field(values: set[int], everything: range, before: CronField) -> CronField:
    if values == before.values:
        return before
    text = "*" if values == set(everything) else ",".join(map(str, sorted(values)))
    return CronField(text, frozenset(values))
