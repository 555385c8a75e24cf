"""Views of jobs and transcripts, as pure functions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from schemas.events.job import JobStatus, StepState
from schemas.jobs.rows import Transcript
from web.resources.jobs.events import encode_event
from web.resources.jobs.job_view import job_view, stage_of
from web.resources.jobs.links import link_to, links_of
from web.resources.jobs.transcripts import transcript_view

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)


def status(state="transcribing", steps=None, **more):
    values = {"tenant_id": "acme", "job_id": "j", "version": 3, "filename": "a.wav", "created_at": AT, "updated_at": AT}
    return JobStatus(**(values | {"status": state, "steps": steps or {}} | more))


def step(state, finished=None, **more):
    return StepState(state=state, finished_at=AT + timedelta(seconds=finished) if finished else None, **more)


def test_steps_are_in_the_order_of_the_pipeline_whatever_order_they_were_stored_in():
    steps = {name: step("done") for name in ("index", "persist", "reconcile", "transcribe.b", "intake", "transcribe.a")}

    shown = job_view(status("completed", steps)).steps

    assert list(shown) == ["intake", "transcribe.a", "transcribe.b", "reconcile", "persist", "index"]


def test_steps_ahead_are_shown_as_waiting_while_the_run_goes_on():
    shown = job_view(status("transcribing", {"intake": step("done"), "transcribe.a": step("running")})).steps

    assert {name: s.state for name, s in shown.items()} == {
        "intake": "done",
        "transcribe.a": "running",
        "reconcile": "waiting",
        "persist": "waiting",
    }


def test_a_run_that_has_ended_has_no_steps_ahead():
    assert list(job_view(status("failed", {"intake": step("failed")})).steps) == ["intake"]


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
    assert job_view(status(state)).stage == stage


def test_the_stage_of_a_failed_job_is_where_it_failed_last():
    steps = {"transcribe.a": step("failed", 5), "reconcile": step("failed", 9), "intake": step("done", 10)}

    assert stage_of(status("failed", steps)) == "reconcile"
    assert stage_of(status("failed")) is None


def test_the_transcript_is_linked_once_there_may_be_one():
    assert "transcript" not in job_view(status("transcribing")).links
    assert job_view(status("completed")).links["transcript"] == "/jobs/j/transcript"
    assert "raw" in job_view(status("transcribing", run=2)).links


def test_what_can_be_done_with_a_job_is_linked_and_an_operators_links_name_its_tenant():
    running, ended = status("transcribing", job_id="a@b"), status("failed", tenant_id="a@b")

    assert links_of(running, operator=False)["cancel"] == "/jobs/a%40b/cancel"
    assert "reprocess" not in links_of(running, operator=False)
    assert links_of(ended, operator=True)["self"] == "/jobs/j?tenant=a%40b"
    assert links_of(ended, operator=True)["reprocess"] == "/jobs/j/reprocess?tenant=a%40b"
    assert "cancel" not in links_of(ended, operator=True)
    assert link_to("acme", "j", "transcript", operator=True, run=2) == "/jobs/j/transcript?tenant=acme&run=2"
    assert link_to("acme", "j", operator=False) == "/jobs/j"


def test_a_view_can_be_read_as_the_status_that_it_shows():
    """Forwarding relies on it: what is added for people is left out again, nothing else."""
    before = status("completed", {"intake": step("done", 1, attempts=2, error="x")}, reason="é\u2028")

    assert JobStatus.model_validate_json(job_view(before).model_dump_json()) == before


def test_an_event_is_one_line_of_data_whatever_the_status_says():
    sent = encode_event(status(reason="two\nlines\r\u2028\x0b")).decode()

    assert sent.startswith("id: 3\nevent: status\ndata: {")
    assert sent.endswith("}\n\n")
    assert sent.count("\n") == 4
    assert "\r" not in sent
    assert encode_event(None).startswith(b":")


def test_a_transcript_is_shown_without_the_uris_of_its_blobs():
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

    shown = transcript_view(row)

    assert "secret" not in shown.model_dump_json()
    assert shown.links["raw"] == "/jobs/j/transcript/raw?run=2"
