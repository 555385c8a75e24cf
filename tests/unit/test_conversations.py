"""Conversations: their names, and the state of their processing as it follows from a job's row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from pydantic import TypeAdapter, ValidationError

from schemas.conversations import names
from schemas.conversations.processing import EXPECTED, LATE, Processing, estimated_completion, processing
from schemas.events.job import EnrichmentState, EnrichmentStatus, StepState
from schemas.jobs.rows import Job

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


def step(state: Any, error: str | None = None, after: int = 0) -> StepState:
    finished_at = NOW + timedelta(seconds=after) if state in ("done", "failed") else None
    return StepState(state=state, error=error, finished_at=finished_at)


def kinds(**states: EnrichmentState | tuple[EnrichmentState, str, str]) -> dict[str, EnrichmentStatus]:
    statuses = {}
    for after, (kind, said) in enumerate(states.items(), 1):
        state, code, error = (said, None, None) if isinstance(said, str) else said
        ended = state in ("done", "failed")
        finished_at = NOW + timedelta(seconds=after) if ended else None
        statuses[kind] = EnrichmentStatus(state=state, code=code, error=error, finished_at=finished_at)
    return statuses


def job(status: Any, **columns: Any) -> Job:
    columns.setdefault("completed_at", NOW if status in ("completed", "failed") else None)
    return Job(
        tenant_id="acme",
        job_id=names.job_id("acme", "conv_1"),
        reference="elevenlabs:conv_1",
        audio_uri="elevenlabs:conv_1",
        filename="conv_1.mp3",
        status=status,
        **columns,
    )


FETCHED = {"fetch": step("done")}
OPEN = {"summary": "pending", "report": "pending", "mail": "pending"}

#: What is in a job's row, then its status, progress, step, error and code.
WALK = {
    "nothing has begun": (job("uploaded"), ("pending", 0, "fetch", None, None)),
    "it waits for a slot": (job("uploaded", steps={"fetch": step("waiting")}), ("pending", 0, "fetch", None, None)),
    "it is fetched": (job("uploaded", steps={"fetch": step("running")}), ("extracting", 10, "fetch", None, None)),
    "it is tried again": (
        job("uploaded", steps={"fetch": step("retrying", "429")}),
        ("extracting", 10, "fetch", "429", None),
    ),
    "its text is stored": (
        job("uploaded", steps={"fetch": StepState(state="running", progress=0.5)}),
        ("storing", 40, "fetch", None, None),
    ),
    "its recording is tried again": (
        job("uploaded", steps={"fetch": StepState(state="retrying", error="503", progress=0.5)}),
        ("storing", 40, "fetch", "503", None),
    ),
    "it is fetched and no more": (job("uploaded", steps=FETCHED), ("storing", 40, "fetch", None, None)),
    "recognizers hear it": (job("transcribing", steps=FETCHED), ("storing", 40, "transcribe", None, None)),
    "readings are reconciled": (job("reconciling", steps=FETCHED), ("storing", 40, "reconcile", None, None)),
    "it is persisted": (job("persisting", steps=FETCHED), ("storing", 40, "persist", None, None)),
    "its summary is due": (job("completed", enrichment=kinds(**OPEN)), ("summarizing", 60, "summary", None, None)),
    "its summary is tried again": (
        job("completed", enrichment=kinds(**OPEN | {"summary": ("retrying", "", "no model")})),
        ("summarizing", 60, "summary", "no model", None),
    ),
    "its report is due": (
        job("completed", enrichment=kinds(**OPEN | {"summary": "done"})),
        ("generating_report", 75, "report", None, None),
    ),
    "its report is made without a summary": (
        job("completed", enrichment=kinds(**OPEN | {"summary": ("failed", "provider_refused", "no")})),
        ("generating_report", 75, "report", None, None),
    ),
    "its mail is due": (
        job("completed", enrichment=kinds(summary="done", report="done", mail="running")),
        ("sending_email", 90, "mail", None, None),
    ),
    "it is complete": (
        job("completed", enrichment=kinds(summary="done", report="done", mail="done")),
        ("completed", 100, None, None, None),
    ),
    "there is no such conversation": (
        job("failed", reason="there is none", code="not_found", steps={"fetch": step("failed", "there is none")}),
        ("failed", 10, "fetch", "there is none", "not_found"),
    ),
    "its recording cannot be had": (
        job("failed", reason="500", code="retries_exhausted", steps={"fetch": StepState(state="failed", progress=0.5)}),
        ("failed", 40, "fetch", "500", "retries_exhausted"),
    ),
    "it cannot be reconciled": (
        job(
            "failed",
            reason="no words",
            code="refused_media",
            steps={"transcribe.a": step("failed"), "reconcile": step("failed", "no words", after=1), **FETCHED},
        ),
        ("failed", 40, "reconcile", "no words", "refused_media"),
    ),
    "it was cancelled while it was fetched": (
        job("failed", reason="enough", code="cancelled", steps={"fetch": step("running"), "cancel": step("failed")}),
        ("cancelled", 10, "cancel", "enough", "cancelled"),
    ),
    "its mail was cancelled": (
        job("completed", enrichment=kinds(summary="done", report="done", mail=("failed", "cancelled", "enough"))),
        ("cancelled", 90, "mail", "enough", "cancelled"),
    ),
    "its summary failed, and the rest was sent": (
        job("completed", enrichment=kinds(summary=("failed", "retries_exhausted", "away"), report="done", mail="done")),
        ("failed", 60, "summary", "away", "retries_exhausted"),
    ),
    "its report failed, and so its mail": (
        job(
            "completed",
            enrichment=kinds(
                summary="done", report=("failed", "invalid_input", "no"), mail=("failed", "invalid_input", "none")
            ),
        ),
        ("failed", 75, "report", "no", "invalid_input"),
    ),
}


@pytest.mark.parametrize(("row", "expected"), WALK.values(), ids=WALK)
def test_the_state_follows_from_the_row(row, expected):
    state = processing(row)

    assert (state.status, state.progress, state.current_step, state.error, state.code) == expected
    assert state.ended == (state.status in ("completed", "failed", "cancelled"))
    assert (state.ended_at is not None) == state.ended
    assert bool(state.what_to_do) == (state.status in ("failed", "cancelled"))


def test_each_failure_is_told_with_what_to_do_and_its_status_is_that_of_the_first():
    row = job(
        "completed",
        enrichment=kinds(
            summary=("failed", "budget_exhausted", "no tokens"), report="done", mail=("failed", "mail_refused", "550")
        ),
    )
    state = processing(row)

    assert (state.status, state.current_step, state.progress) == ("failed", "summary", 60)
    assert [(one.step, one.error, one.code) for one in state.failures] == [
        ("summary", "no tokens", "budget_exhausted"),
        ("mail", "550", "mail_refused"),
    ]
    assert "monthly_tokens" in state.failures[0].what_to_do
    assert "address" in state.failures[1].what_to_do


def test_a_failure_is_told_while_later_steps_go_on():
    row = job(
        "completed", enrichment=kinds(summary=("failed", "provider_refused", "no"), report="done", mail="running")
    )

    assert (processing(row).status, processing(row).what_to_do) == ("sending_email", None)
    assert [one.step for one in processing(row).failures] == ["summary"]


def test_a_complete_processing_is_archived_when_its_files_are_removed():
    row = job("completed", enrichment=kinds(summary="done", report="done", mail="done"))

    assert processing(row, has_files=False).status == "archived"
    assert processing(row, has_files=False).progress == 100
    assert processing(row).ended_at == NOW + timedelta(seconds=3), "when the mail was sent"


@pytest.mark.parametrize(
    ("step", "code", "said"),
    [
        ("fetch", "not_found", "ELEVENLABS_API_KEY"),
        ("fetch", "too_large", "limit"),
        ("summary", "retries_exhausted", "language model"),
        ("summary", "budget_exhausted", "monthly_tokens"),
        ("mail", "mail_refused", "address"),
        ("mail", "mail_in_doubt", "concord mail resend"),
        ("reconcile", "internal_error", "goes on at this step"),
    ],
)
def test_a_failure_says_what_to_do(step, code, said):
    row = (
        job("failed", code=code, steps={step: StepState(state="failed")})
        if step in ("fetch", "reconcile")
        else job("completed", enrichment=kinds(**{step: ("failed", code, "no")}))
    )

    assert said in (processing(row).what_to_do or "")


def test_a_completion_is_estimated_from_the_begin_and_never_in_the_past():
    state, ended = Processing("extracting", 10), Processing("completed", 100, ended_at=NOW)

    assert estimated_completion(state, NOW, NOW) == NOW + EXPECTED
    assert estimated_completion(state, NOW - timedelta(hours=1), NOW) == NOW + LATE
    assert estimated_completion(ended, NOW - timedelta(hours=1), NOW + timedelta(hours=1)) == NOW


def test_names_are_derivable_both_ways():
    id = names.job_id("acme", "conv_01k")
    processing_id = names.processing_id(id)

    assert names.job_of(processing_id) == id == str(UUID(id))
    assert processing_id.startswith("proc_")
    assert names.job_id("umbrella", "conv_01k") != id
    assert names.conversation_of(job("uploaded")) == "conv_1"
    assert names.conversation_of(SimpleNamespace(audio_uri="https://example.com/elevenlabs:conv_1.mp3")) is None


@pytest.mark.parametrize("id", ["", "proc_", "proc_12", f"proc_{'g' * 32}", f"PROC_{'a' * 32}", f"proc_{'a' * 32}\n"])
def test_what_is_no_processing_id_names_no_job(id):
    assert names.job_of(id) is None
    with pytest.raises(ValidationError):
        TypeAdapter(names.ProcessingId).validate_python(id)


@pytest.mark.parametrize("id", ["conv_01k2abc", "21m00Tcm4TlvDq8ikWAM", "a", "a" * 128, "a-b_c"])
def test_ids_of_conversations(id):
    assert TypeAdapter(names.ConversationId).validate_python(id) == id


@pytest.mark.parametrize("id", ["", "a" * 129, "../etc", "a/b", "a b", "-a", "_a", "a\n", "é", "a.b", "conv:1"])
def test_what_is_no_id_of_a_conversation(id):
    with pytest.raises(ValidationError):
        TypeAdapter(names.ConversationId).validate_python(id)
