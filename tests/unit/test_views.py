"""What HTTP shows of a job, as pure functions."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import InvalidInput, NotFound
from schemas.events.job import JobStatus, StepState
from schemas.jobs.rows import Transcript
from sinks.ports.reads import Cursor, Page
from web import views
from web.files import disposition

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)


def status(state="transcribing", steps=None, **more):
    known = {"tenant_id": "acme", "job_id": "j", "version": 3, "filename": "a.wav", "created_at": AT, "updated_at": AT}
    return JobStatus(**(known | {"status": state, "steps": steps or {}} | more))


def step(state, finished=None, **more):
    return StepState(state=state, finished_at=AT + timedelta(seconds=finished) if finished else None, **more)


def test_steps_are_in_the_order_of_the_pipeline_whatever_order_they_were_stored_in():
    steps = {name: step("done") for name in ("index", "persist", "reconcile", "transcribe.b", "intake", "transcribe.a")}

    shown = views.job_view(status("completed", steps)).steps

    assert list(shown) == ["intake", "transcribe.a", "transcribe.b", "reconcile", "persist", "index"]


def test_steps_ahead_are_shown_as_waiting_while_the_run_goes_on():
    shown = views.job_view(status("transcribing", {"intake": step("done"), "transcribe.a": step("running")})).steps

    assert {name: s.state for name, s in shown.items()} == {
        "intake": "done",
        "transcribe.a": "running",
        "reconcile": "waiting",
        "persist": "waiting",
    }


def test_a_run_that_has_ended_has_no_steps_ahead():
    assert list(views.job_view(status("failed", {"intake": step("failed")})).steps) == ["intake"]


@pytest.mark.parametrize(
    ("state", "stage"),
    [
        ("uploaded", "intake"),
        ("transcribing", "transcribe"),
        ("reconciling", "reconcile"),
        ("persisting", "persist"),
        ("completed", None),
    ],
)
def test_the_stage_is_the_one_that_has_the_job(state, stage):
    assert views.job_view(status(state)).stage == stage


def test_the_stage_of_a_failed_job_is_where_it_failed_last():
    steps = {"transcribe.a": step("failed", 5), "reconcile": step("failed", 9), "intake": step("done", 10)}

    assert views.stage_of(status("failed", steps)) == "reconcile"
    assert views.stage_of(status("failed")) is None


def test_the_transcript_is_linked_once_there_may_be_one():
    assert "transcript" not in views.job_view(status("transcribing")).links
    assert views.job_view(status("completed")).links["transcript"] == "/jobs/j/transcript"
    assert "raw" in views.job_view(status("transcribing", run=2)).links


def test_another_worker_reads_the_same_status_out_of_the_document():
    """Forwarding relies on it: what is added for people is left out again, nothing else."""
    before = status("completed", {"intake": step("done", 1, attempts=2, error="x")}, reason="é\u2028")

    assert JobStatus.model_validate_json(views.job_view(before).model_dump_json()) == before


def test_an_event_is_one_line_of_data_whatever_the_status_says():
    sent = views.event(status(reason="two\nlines\r\u2028\x0b")).decode()

    assert sent.startswith("id: 3\nevent: status\ndata: {")
    assert sent.endswith("}\n\n")
    assert sent.count("\n") == 4
    assert "\r" not in sent
    assert views.event(None).startswith(b":")


def test_a_transcript_is_shown_without_the_places_of_its_blobs():
    row = Transcript(
        tenant_id="acme",
        job_id="j",
        run=2,
        text="hello",
        words=1,
        speakers=[],
        segments=[],
        language=None,
        confidence=None,
        agreement=None,
        method="single",
        provider_confidences={},
        reconciliation_notes=[],
        quality={},
        raw_transcript_uri="file:///secret/place",
        agent_optimized_uri="file:///secret/place",
        duration_ms=None,
    )

    shown = views.transcript_view(row)

    assert "secret" not in shown.model_dump_json()
    assert shown.links["raw"] == "/jobs/j/transcript/raw?run=2"


async def test_a_page_says_where_the_next_begins():

    shown = views.JobPage.model_validate_json(await views.page_body(Page([status()], Cursor(AT, "j"))))

    assert views.decode_cursor(shown.next) == Cursor(AT, "j")
    assert [j.job_id for j in shown.jobs] == ["j"]
    assert await views.page_body(Page([], None)) == b'{"jobs":[],"next":null}'


@given(
    st.datetimes(timezones=st.just(UTC)),
    st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_:@-]{0,126}[A-Za-z0-9_-])?", fullmatch=True),
)
def test_a_cursor_survives_its_way_through_a_url(at, job_id):
    text = views.encode_cursor(Cursor(at, job_id))

    assert views.decode_cursor(text) == Cursor(at, job_id)
    assert text.isascii()
    assert not set(text) & set("=+/&?#%")


def coded(value):
    import base64

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
def test_a_broken_cursor_is_refused_saying_what_to_do(text):
    with pytest.raises(InvalidInput, match="use `next` of an earlier answer"):
        views.decode_cursor(text)


def test_a_cursor_from_another_time_zone_is_the_same_place():
    there = datetime(2026, 5, 1, 14, tzinfo=timezone(timedelta(hours=2)))

    assert views.decode_cursor(coded([there.isoformat(), "j"])) == Cursor(AT, "j")


@pytest.mark.parametrize("text", ["0", "501", "-1", "1e3", "1.5", "١", "9" * 30, " 1", "x", "0x10", "+1"])  # noqa: RUF001
def test_a_number_out_of_its_range_is_refused_with_the_range(text):
    with pytest.raises(InvalidInput, match="limit: a whole number from 1 to 500"):
        views.wanted_number({"limit": text}, "limit", 500, 50)


def test_a_number_that_is_not_given_is_the_default():
    assert views.wanted_number({}, "limit", 500, 50) == 50
    assert views.wanted_number({"limit": ""}, "limit", 500, None) is None
    assert views.wanted_number({"limit": "500"}, "limit", 500, 50) == 500


@pytest.mark.parametrize("text", ["", " ", "x" * 256, "a\x00", "a\n", "\u202ea", "\ud800"])
def test_a_name_that_no_job_can_have_is_as_unknown_as_any_other(text):
    with pytest.raises(NotFound, match=r"^there is no such job$"):
        views.job_name(text)


@pytest.mark.parametrize("text", ["..", "a/b", "a b", "é", "-a", "%2e"])
def test_a_reference_may_be_whatever_a_producer_calls_it(text):
    assert views.job_name(text) == text


@pytest.mark.parametrize(
    "text", ["", "..", "a/b", "a b", ".a", "a.", "a..b", "x" * 129, "a\x00", "é", "-a", "%2e", "a\n"]
)
def test_a_tenant_that_cannot_exist_is_as_unknown_as_any_other(text):
    with pytest.raises(NotFound, match=r"^there is no such tenant$"):
        views.tenant_name(text)


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("", None),
        ("bytes=0-", (0, 10)),
        ("bytes=0-0", (0, 1)),
        ("bytes=3-5", (3, 6)),
        ("bytes=3-99", (3, 10)),
        ("bytes=-4", (6, 10)),
        ("bytes=-99", (0, 10)),
        ("BYTES = 3 - 5", (3, 6)),
        ("bytes=10-", (10, 10)),
        ("bytes=99-100", (10, 10)),
        ("bytes=-0", (10, 10)),
        ("bytes=5-3", None),
        ("bytes=1-2,4-5", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=²-³", None),
        ("bytes=--5", None),
        ("items=0-5", None),
        ("bytes 0-5", None),
        ("bytes=0-" + "9" * 30, None),
    ],
)
def test_a_range_is_read_as_rfc_9110_has_it(header, part):
    assert views.byte_range(header, 10) == part


@given(st.text(max_size=30), st.integers(0, 100))
def test_a_range_lies_within_the_content_whatever_was_asked_for(text, size):
    for header in (text, f"bytes={text}"):
        part = views.byte_range(header, size)
        assert part is None or 0 <= part[0] <= part[1] <= size


@given(st.text())
def test_a_file_name_cannot_break_out_of_its_header(name):
    said = disposition(name)

    assert said.isascii()
    assert said.isprintable()
    assert said.startswith('inline; filename="')
    assert said.count('"') == 2
