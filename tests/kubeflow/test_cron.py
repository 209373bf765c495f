"""kubeflow.cron and kubeflow.cron_timezone: five fields, as KFP's scheduler has to read them.

What a line means is checked against a matcher of our own on calendar days, below, which follows
crontab(5) and shares nothing with the code under test.
"""

import datetime
from collections.abc import Iterator
from zoneinfo import ZoneInfo

import pytest

from kubeflow.cron import parse_cron
from kubeflow.cron_timezone import in_cluster_time

UTC = datetime.timezone.utc
NOW = datetime.datetime(2027, 1, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "six"),
    [
        ("0 2 * * *", "0 0 2 * * *"),
        ("*/15 * * * *", "0 */15 * * * *"),
        ("  5,35   8-18/2 1,15  JAN,jul-Sep   * ", "0 5,35 8-18/2 1,15 1,7-9 *"),
        ("0 2 * * MON-FRI", "0 0 2 * * 1-5"),
        ("0 2 * * 1-5/2", "0 0 2 * * 1-5/2"),
        ("59 23 31 12 6", "0 59 23 31 12 6"),
        ("*/1 */1 * * *", "0 * * * * *"),
        ("0 5-5/1 * * *", "0 0 5-5 * * *"),
        ("0 0 29 2 *", "0 0 0 29 2 *"),
        ("0 0 30 2 MON", "0 0 0 30 2 1"),  # either will do, and Mondays come
    ],
)
def test_five_fields_become_six_with_second_0_first(line, six):
    assert parse_cron(line).six_fields() == six


@pytest.mark.parametrize(
    ("days", "as_kfp_reads_them"),
    [
        ("0", "0"),
        ("7", "0"),
        ("sun", "0"),
        ("SUN-TUE", "0-2"),
        ("5-7", "0,5,6"),
        ("FRI-SUN", "0,5,6"),
        ("FRI-SUN,WED", "0,3,5,6"),
        ("1-7/2", "0,1,3,5"),
        ("0-7", "0,1,2,3,4,5,6"),
        ("*/2", "*/2"),  # from Sunday on: 0, 2, 4, 6
    ],
)
def test_sunday_is_0_and_7_for_people_and_0_alone_for_kfp(days, as_kfp_reads_them):
    assert parse_cron(f"0 2 * * {days}").six_fields() == f"0 0 2 * * {as_kfp_reads_them}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0 2 * * *", "has 6 fields: must be five, minute hour .*; leave out the seconds"),
        ("0 0 2 * * * 2027", "has 7 fields: must be five, .* seconds and the year"),
        ("0 2 * *", "has 4 fields: must be five"),
        ("", "has 0 fields"),
        ("@daily", "has 1 field: must be five, .*; @daily is 0 0 "),
        ("CRON_TZ=Europe/Berlin 0 2 * * *", "has 6 fields.* the time zone is an option"),
        ("60 2 * * *", "minute is '60': must be numbers from 0 to 59, .* and not '60'"),
        ("0 24 * * *", "hour is '24': must be numbers from 0 to 23"),
        ("0 2 0 * *", "day of month is '0': must be numbers from 1 to 31"),
        ("0 2 32 * *", "day of month is '32'"),
        ("0 2 * 0 *", "month is '0': must be numbers from 1 to 12, JAN to DEC"),
        ("0 2 * 13 *", "month is '13'"),
        ("0 2 * * 8", "day of week is '8': must be numbers from 0 to 7, SUN to SAT"),
        ("0 2 * * -1", "day of week is '-1'"),
        ("MON 2 * * *", "minute is 'MON'"),
        ("0 2 * MON *", "month is 'MON'"),
        ("0 2 * * JAN", "day of week is 'JAN'"),
        ("0 2 * * MONDAY", "day of week is 'MONDAY'"),
        ("0 2 ? * *", "day of month is '\\?'"),
        ("0 2 L * *", "day of month is 'L'"),
        ("0 2 1,,2 * *", "day of month is '1,,2'.* and not ''"),
        ("0 2-4-6 * * *", "hour is '2-4-6'"),
        ("0 2/3/4 * * *", "hour is '2/3/4'"),
        ("0 8-2 * * *", "hour is '8-2': a range must not run backwards"),
        ("0 2 * * SAT-MON", "day of week is 'SAT-MON': a range must not run backwards"),
        ("0 2/3 * * *", "hour is '2/3': a step must follow .* such as 2-23/3"),
        ("*/0 2 * * *", "minute is '\\*/0': the step of '\\*/0' must be 1 to 59"),
        ("0 */24 * * *", "hour is '\\*/24': the step .* must be 1 to 23"),
        ("0 2-4/3 * * *", "the step of '2-4/3' must be 1 to 2"),
        ("0 5-5/2 * * *", "the step of '5-5/2' must be 1 to 1"),
        ("0 1,* * * *", "hour is '1,\\*': \\* must not stand in a list"),
        ("\u0663 2 * * *", "minute is"),  # an Arabic digit
    ],
)
def test_a_line_that_does_not_parse_is_an_error_with_field_value_and_rule(line, message):
    with pytest.raises(ValueError, match=message):
        parse_cron(line)


@pytest.mark.parametrize("line", ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 30,31 2 *"])
def test_a_day_that_never_comes_is_an_error(line):
    with pytest.raises(ValueError, match="these months have no day 3"):
        parse_cron(line)


@pytest.mark.parametrize("line", ["0 2 */2 * MON", "0 2 13 * */2", "0 2 */2 * */2"])
def test_days_that_crons_combine_in_two_ways_are_an_error(line):
    with pytest.raises(ValueError, match="crons differ on whether both must hold"):
        parse_cron(line)


# What the six fields of a line without names, sevens or backward ranges mean.


def values_of(text: str, low: int, high: int) -> set[int]:
    found = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = (f"{low}-{high}" if span == "*" else span).partition("-")
        found |= set(range(int(first), int(last or first) + 1, int(step or 1)))
    return found


def instants_of(six: str, timezone: str, days: int) -> Iterator[datetime.datetime]:
    """Each instant at which a scheduler with clocks of that zone starts a run, in UTC."""
    second, *texts = six.split()
    assert second == "0"
    bounds = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]
    minutes, hours, dates, months, week = (
        values_of(text, *bound) for text, bound in zip(texts, bounds, strict=True)
    )
    both = texts[2].startswith("*") or texts[4].startswith("*")
    for quarter in range(days * 24 * 4):  # no line below asks for other minutes
        instant = NOW + datetime.timedelta(minutes=15 * quarter)
        local = instant.astimezone(ZoneInfo(timezone))
        in_dates, in_week = local.day in dates, local.isoweekday() % 7 in week
        if (
            local.minute in minutes
            and local.hour in hours
            and local.month in months
            and ((in_dates and in_week) if both else (in_dates or in_week))
        ):
            yield instant


@pytest.mark.parametrize(
    ("line", "timezone", "cluster", "six"),
    [
        ("0 2 * * *", "UTC", "UTC", "0 0 2 * * *"),
        ("0 2 * * *", "Europe/Berlin", "Europe/Berlin", "0 0 2 * * *"),
        ("0 2 1 * *", "Europe/Berlin", "Europe/Paris", "0 0 2 1 * *"),
        ("0 10 * * *", "Asia/Tokyo", "UTC", "0 0 1 * * *"),
        ("0 2 * * *", "Asia/Tokyo", "UTC", "0 0 17 * * *"),
        ("30 2 * * *", "Asia/Kolkata", "UTC", "0 0 21 * * *"),
        ("0,30 9,18 * * *", "Asia/Kolkata", "UTC", None),
        ("0 2 * * MON-FRI", "Asia/Tokyo", "UTC", "0 0 17 * * 0,1,2,3,4"),
        ("0 22 * * SUN", "America/Bogota", "UTC", "0 0 3 * * 1"),
        ("0 12 1 * *", "Asia/Tokyo", "UTC", "0 0 3 1 * *"),
        ("0 12 13 * FRI", "Asia/Tokyo", "UTC", "0 0 3 13 * 5"),
        ("0 */6 * * *", "Asia/Tokyo", "UTC", "0 0 3,9,15,21 * * *"),
        ("*/15 * * * *", "America/New_York", "UTC", "0 */15 * * * *"),  # summer or not
        ("0 2 * * *", "Europe/London", "Europe/Berlin", "0 0 3 * * *"),  # both change at once
    ],
)
def test_a_line_for_the_cluster_starts_runs_when_the_line_that_was_given_says(
    line, timezone, cluster, six
):
    if six is None:
        with pytest.raises(ValueError, match="must mean the same instants in one line"):
            in_cluster_time(parse_cron(line), timezone, cluster, NOW)
        return
    moved = in_cluster_time(parse_cron(line), timezone, cluster, NOW)
    assert moved.six_fields() == six
    given = list(instants_of(parse_cron(line).six_fields(), timezone, days=80))
    assert given
    assert list(instants_of(six, cluster, days=80)) == given


@pytest.mark.parametrize(
    ("line", "timezone", "cluster", "clocks"),
    [
        ("0 2 * * *", "Europe/Berlin", "UTC", "change at other times than"),
        ("0 2 * * *", "UTC", "Europe/Berlin", "change at other times than"),
        # An hour apart, always, but for the two hours of a year between the changes.
        ("0 2 * * *", "America/New_York", "America/Chicago", "change at other times than"),
        ("0 2 1 * *", "Asia/Tokyo", "UTC", "differ from"),
        ("0 2 * 1 *", "Asia/Tokyo", "UTC", "differ from"),
        ("0 * * * MON", "Asia/Tokyo", "UTC", "differ from"),
    ],
)
def test_a_line_that_the_cluster_cannot_keep_is_an_error_that_says_what_to_do(
    line, timezone, cluster, clocks
):
    with pytest.raises(ValueError, match=clocks) as error:
        in_cluster_time(parse_cron(line), timezone, cluster, NOW)
    assert f"timezone is '{timezone}'" in str(error.value)
    assert "set cronScheduleTimezone in the cluster's ConfigMap" in str(error.value)


@pytest.mark.parametrize(
    "name", ["Europe/Atlantis", "europe/berlin ", "", "../etc/passwd", "Europe"]
)
def test_an_unknown_time_zone_is_an_error(name):
    with pytest.raises(ValueError, match=r"^timezone is .*: must be a name of the IANA database"):
        in_cluster_time(parse_cron("0 2 * * *"), name, "UTC", NOW)
    with pytest.raises(ValueError, match=r"^cluster timezone is"):
        in_cluster_time(parse_cron("0 2 * * *"), "UTC", name, NOW)
