"""The lines of `concord enrich --list`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from agents.commands.operations.enrich import line, once
from schemas.accounts.schedules import WantedJobs

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def asked(wanted, **more):
    return replace(once("acme", "summary", wanted, NOW), created_at=NOW, **more)


def test_lines_of_the_same_tenant_and_kind_are_told_apart():
    two = asked(WantedJobs(lacking=True)), asked(WantedJobs(lacking=True))

    assert line(two[0]) != line(two[1])
    for one in two:
        text = "2026-05-01 12:00:00  acme                 summary of jobs that lack it: asking for 0 jobs"
        assert line(one) == f"{one.schedule_id}  {text}"


def test_a_line_says_of_which_jobs_by_whom_and_how_far_it_is():
    older = NOW - timedelta(days=3)
    going = asked(WantedJobs(last_days=90), after_created_at=older, asked=200, created_by="key_1")
    over = replace(going, last_tick_at=NOW, last_asked=431, last_error="\x1b[2J no")

    assert line(going).endswith(
        "summary of all jobs of the last 90 days by key_1: asking for 200 jobs  back to 2026-04-28 12:00"
    )
    assert "by key_1: asked for 431 jobs" in line(over)
    assert "\x1b" not in line(over)
    assert line(asked(WantedJobs(language="de"))).endswith("summary of all jobs language=de: asking for 0 jobs")
