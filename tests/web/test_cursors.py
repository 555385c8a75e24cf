"""Pages of a list, and the cursors between them."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events.job import JobStatus, StepState
from sinks.ports.corrections.review import ReviewCursor
from sinks.ports.reads import Cursor, Page
from web.resources.corrections.review import decode_cursor as decode_review_cursor
from web.resources.jobs.listing import JobPage, decode_cursor, encode_cursor, page_body

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)


def status(state="transcribing", steps=None, **more):
    values = {"tenant_id": "acme", "job_id": "j", "version": 3, "filename": "a.wav", "created_at": AT, "updated_at": AT}
    return JobStatus(**(values | {"status": state, "steps": steps or {}} | more))


def step(state, finished=None, **more):
    return StepState(state=state, finished_at=AT + timedelta(seconds=finished) if finished else None, **more)


async def test_a_page_has_the_cursor_of_the_next():

    body, following = await page_body(Page([status()], Cursor(AT, "j")))
    shown = JobPage.model_validate_json(body)

    assert decode_cursor(shown.next) == decode_cursor(following) == Cursor(AT, "j")
    assert [j.job_id for j in shown.jobs] == ["j"]
    assert await page_body(Page([], None)) == (b'{"jobs":[],"next":null}', None)


@given(
    st.datetimes(timezones=st.just(UTC)),
    st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_:@-]{0,126}[A-Za-z0-9_-])?", fullmatch=True),
)
def test_a_cursor_is_decoded_to_what_was_encoded(at, job_id):
    text = encode_cursor(Cursor(at, job_id))

    assert decode_cursor(text) == Cursor(at, job_id)
    assert text.isascii()
    assert not set(text) & set("=+/&?#%")


def coded(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "%%%",
        "AAAA",
        "Ωmega",
        "a" * 9000,
        coded([]),
        coded({}),
        coded(["2026-05-01T12:00:00+00:00"]),
        coded(["2026-05-01T12:00:00", "j"]),
        coded(["2026-05-01T12:00:00+00:00", "../j"]),
        coded(["2026-05-01T12:00:00+00:00", 7]),
        coded([7, "j"]),
        coded(["9999-12-31T23:59:59-23:00", "j"]),
        coded(["0001-01-01T00:00:00+23:00", "j"]),
        coded([["2026"], "j"]),
    ],
)
def test_a_malformed_cursor_is_refused_with_advice(text):
    with pytest.raises(ValueError, match="use `next` of an earlier answer"):
        decode_cursor(text)


@pytest.mark.parametrize("doubt", ["nan", "0.5", 1, True, None, [0.5], float("nan"), float("inf"), -float("inf")])
def test_a_place_in_the_review_queue_has_a_number(doubt):
    assert decode_review_cursor(coded([0.5, "i"])) == ReviewCursor(0.5, "i")
    with pytest.raises(ValueError, match="use `next` of an earlier answer"):
        decode_review_cursor(coded([doubt, "i"]))


def test_a_cursor_in_another_time_zone_is_the_same_cursor():
    there = datetime(2026, 5, 1, 14, tzinfo=timezone(timedelta(hours=2)))

    assert decode_cursor(coded([there.isoformat(), "j"])) == Cursor(AT, "j")
