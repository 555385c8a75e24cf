"""The times of schedules: cron expressions in time zones, over changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from schemas.accounts.schedules import check_cron, next_tick, zone


def ticks(cron: str, timezone: str, after: datetime, many: int) -> list[str]:
    found = []
    for _ in range(many):
        after = next_tick(cron, timezone, after)
        found.append(after.astimezone(zone(timezone)).isoformat())
    return found


def test_a_time_that_does_not_exist_is_the_first_that_does():
    assert ticks("30 2 * * *", "Europe/Berlin", datetime(2027, 3, 26, 12, tzinfo=UTC), 3) == [
        "2027-03-27T02:30:00+01:00",
        "2027-03-28T03:00:00+02:00",
        "2027-03-29T02:30:00+02:00",
    ]


def test_a_time_that_comes_twice_counts_once():
    assert ticks("30 2 * * *", "Europe/Berlin", datetime(2027, 10, 29, 12, tzinfo=UTC), 3) == [
        "2027-10-30T02:30:00+02:00",
        "2027-10-31T02:30:00+02:00",
        "2027-11-01T02:30:00+01:00",
    ]


def test_a_weekly_time_stays_the_same_by_the_clock():
    assert ticks("0 6 * * MON", "America/New_York", datetime(2027, 3, 9, tzinfo=UTC), 2) == [
        "2027-03-15T06:00:00-04:00",
        "2027-03-22T06:00:00-04:00",
    ]


@pytest.mark.parametrize("cron", ["0 3 * * *", "0 * * * *", "15 6 1 * *", "0 0 29 2 *", "0 8 L * *", "0 3 * * 1-5"])
def test_times_an_hour_apart_and_more_are_taken(cron):
    check_cron(cron, "Europe/Berlin")


@pytest.mark.parametrize(
    ("cron", "reason"),
    [
        ("* * * * *", "more than once an hour"),
        ("0,30 3 * * *", "more than once an hour"),
        ("0 0 30 2 *", "no time that comes"),
        ("0 0 * * 1L/2", "no time that comes"),
        ("61 0 * * *", "no time that comes"),
        ("0 0 1 1 * *", "five fields"),
        ("", "five fields"),
        ("/".join("1" * 50) + " * * * *", "no time that comes"),
    ],
)
def test_what_is_no_schedule_is_refused(cron, reason):
    with pytest.raises(ValueError, match=reason):
        check_cron(cron, "UTC")


@pytest.mark.parametrize("name", ["", "Europe", "Mars/Olympus", "../etc/passwd", "/etc/localtime", "a\0b", "x" * 300])
def test_what_is_no_time_zone_is_refused(name):
    with pytest.raises(ValueError, match="no time zone"):
        zone(name)
