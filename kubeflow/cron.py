"""Cron's five fields as people know them, and the six that Kubeflow Pipelines reads.

What people know is crontab(5): minute, hour, day of month, month, day of week. KFP's API server and
its scheduler both parse by version 1 of the Go library robfig/cron, which wants seconds first, has
Sunday as 0 but not as 7, no ranges that wrap, and no time zone within the line.
"""

import dataclasses
import re

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_FIELDS = "minute hour day-of-month month day-of-week"
_ELEMENT = re.compile(r"(?:(\*)|([A-Za-z0-9]+)(?:-([A-Za-z0-9]+))?)(?:/([0-9]+))?")


@dataclasses.dataclass(frozen=True)
class CronField:
    """One field: the text that KFP reads, numbers in place of names, and the values it means."""

    text: str
    values: frozenset[int]

    @property
    def is_every(self) -> bool:
        """Whether the field leaves everything open."""
        return self.text == "*"


@dataclasses.dataclass(frozen=True)
class Cron:
    """A checked cron line without seconds."""

    minute: CronField
    hour: CronField
    day_of_month: CronField
    month: CronField
    day_of_week: CronField

    def six_fields(self) -> str:
        """Returns the line as KFP reads it: at second 0 of each minute that is meant."""
        fields = (self.minute, self.hour, self.day_of_month, self.month, self.day_of_week)
        return " ".join(["0", *(field.text for field in fields)])


@dataclasses.dataclass(frozen=True)
class _Kind:
    """What the elements of one field may be; a name's index is its number."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        named = [name.upper() for name in self.names if name]
        names = f", {named[0]} to {named[-1]}" if named else ""
        return (
            f"numbers from {self.low} to {self.high}{names}, * and ranges a-b, with steps such as "
            "*/2 and with commas between"
        )

    def value(self, text: str) -> int | None:
        """Returns the number that is meant, None if there is none within the bounds."""
        if text.isdigit():
            number = int(text)
        elif text.lower() in self.names:
            number = self.names.index(text.lower())
        else:
            return None
        return number if self.low <= number <= self.high else None


def parse_cron(line: str) -> Cron:
    """Returns a line's five fields, checked.

    Args:
        line: The fields, with spaces between: numbers, MON to SUN, JAN to DEC, `*`, ranges, lists,
            and steps after `*` or a range. Sunday is 0 or 7. If neither day field begins with `*`,
            a day counts when either of them has it, as crontab(5) and robfig/cron both say.

    Raises:
        ValueError: there are not five fields, one of them is out of range or means different
            things to different crons, or no such day ever comes.
    """
    parts = line.split()
    if len(parts) != 5:
        raise ValueError(
            f"cron is {line!r}, which has {len(parts)} field{'s' * (len(parts) != 1)}: must be "
            f"five, {_FIELDS}{_advice(parts)}"
        )
    cron = Cron(
        minute=_field(parts[0], _Kind("minute", 0, 59)),
        hour=_field(parts[1], _Kind("hour", 0, 23)),
        day_of_month=_field(parts[2], _Kind("day of month", 1, 31)),
        month=_field(parts[3], _Kind("month", 1, 12, ("", *_MONTHS))),
        day_of_week=_day_of_week(parts[4]),
    )
    _check_days(line, cron)
    return cron


def _advice(parts: list[str]) -> str:
    if parts and re.match("(CRON_)?TZ=", parts[0]):
        return "; the time zone is an option of its own"
    if parts and parts[0].startswith("@"):
        return "; @daily is 0 0 * * *, @hourly is 0 * * * *"
    if len(parts) == 6:
        return "; leave out the seconds (KFP's sixth field, which is added) or the year"
    if len(parts) == 7:
        return "; leave out the seconds and the year"
    return ""


def _field(text: str, kind: _Kind) -> CronField:
    """Returns a field of any kind. Its text keeps ranges and steps; names become numbers."""
    parts = [_element(part, text, kind) for part in text.split(",")]
    if len(parts) > 1 and any(part.text.startswith("*") for part in parts):
        # Only the first of a list decides for crontab(5) whether the field counts as `*`, any of
        # them for robfig/cron.
        raise ValueError(f"cron's {kind.name} is {text!r}: * must not stand in a list")
    values = frozenset[int]().union(*(part.values for part in parts))
    return CronField(",".join(part.text for part in parts), values)


def _element(part: str, text: str, kind: _Kind) -> CronField:
    """Returns one element of a field's list."""
    match = _ELEMENT.fullmatch(part)
    star, first, last, step = match.groups() if match else (None, "", None, None)
    start, end = (kind.low, kind.high) if star else (kind.value(first), kind.value(last or first))
    if start is None or end is None:
        raise ValueError(f"cron's {kind.name} is {text!r}: must be {kind.rule}, and not {part!r}")
    if start > end:
        raise ValueError(
            f"cron's {kind.name} is {text!r}: a range must not run backwards, as {part!r} does"
        )
    if step and not (star or last):
        # robfig/cron goes on from there to the end; crontab(5) has no such form.
        raise ValueError(
            f"cron's {kind.name} is {text!r}: a step must follow * or a range, such as "
            f"{start}-{kind.high}/{step}"
        )
    longest = max(end - start, 1)
    if step and not 1 <= int(step) <= longest:
        raise ValueError(
            f"cron's {kind.name} is {text!r}: the step of {part!r} must be 1 to {longest}"
        )
    by = int(step or 1)
    written = "*" if star else f"{start}-{end}" if last else str(start)
    return CronField(
        written if by == 1 else f"{written}/{by}", frozenset(range(start, end + 1, by))
    )


def _day_of_week(text: str) -> CronField:
    """Returns the days with Sunday as 0, however it was written."""
    if text.startswith("*"):
        return _field(text, _Kind("day of week", 0, 6, _DAYS))
    # FRI-SUN is what people write: at the end of a range, and only there, the name is 7.
    written = re.sub(r"-SUN\b", "-7", text, flags=re.IGNORECASE)
    field = _field(written, _Kind("day of week", 0, 7, _DAYS))
    if 7 not in field.values:
        return field
    values = frozenset(day % 7 for day in field.values)
    return CronField(",".join(map(str, sorted(values))), values)


def _check_days(line: str, cron: Cron) -> None:
    days, week = cron.day_of_month, cron.day_of_week
    for field, other in ((days, week), (week, days)):
        if field.text.startswith("*/") and not other.is_every:
            # crontab(5)'s programs and robfig/cron 1 take */2 for a `*`, and want both; version 3,
            # which Kubernetes' own CronJob has, takes it for a restriction, and either will do.
            raise ValueError(
                f"cron is {line!r}: {field.text} for days must not be combined with other days, "
                "since crons differ on whether both must hold; write the days out"
            )
    longest = max(_LONGEST_MONTHS[month - 1] for month in cron.month.values)
    if week.is_every and min(days.values) > longest:
        # robfig/cron answers with the year 1, which KFP's scheduler takes for a time gone by.
        raise ValueError(f"cron is {line!r}: these months have no day {min(days.values)}")
