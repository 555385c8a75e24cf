"""Every message in the outbox fits its topic: retries, dead letters, and Concord's own events."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import orjson
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.runtime.kafka.record_format import MAX_HEADERS
from agents.stages import registry
from schemas.envelope import MAX_EVENT_BYTES, MAX_VALUE_BYTES, Record, decode
from schemas.errors import MalformedEvent
from schemas.events.job import JobFailed, JobReprocess, JobStatus, StepState
from schemas.jobs.outcome import Later, Outcome, Progress, RequestChange, Step
from schemas.jobs.rows import Job, ProviderRequest
from schemas.jobs.transitions import Rows, advance
from schemas.messages import again, dead_letter, largest, message, size_of

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TOPICS = {t.name: t for t in registry.all_topics(("a",))}
UPLOAD = {"tenant_id": "t", "audio_uri": "https://example.com/a.wav", "filename": "a.wav"}
JOB = Job(tenant_id="t", job_id="j", filename="a.wav", audio_uri="https://example.com/a.wav", status="transcribing")
WHOSE = {"tenant_id": "t", "job_id": "j", "run": 1}

#: Kafka's own `message.max.bytes`, which a topic has that somebody else made.
KAFKAS_DEFAULT = 1_048_588

#: Text as providers and hosts may send it: long, of any bytes a character.
TEXTS = st.builds(str.__mul__, st.sampled_from(["x", "é", "\U0001f600", "\x01", "\x00", '"']), st.integers(0, 400_000))


def fits(sent) -> bool:
    return size_of(sent) <= largest(sent.topic)


def wire_size(sent) -> int:
    """What Kafka compares with `max.message.bytes`."""
    builder = DefaultRecordBatchBuilder(2, 0, 1, 1, 0, 0, 16_384)
    builder.append(0, 1_700_000_000_000, sent.key, sent.value, list(sent.headers))
    return len(builder.build())


assert MAX_EVENT_BYTES < KAFKAS_DEFAULT


def upload(value: bytes | None = None, key: bytes | None = b"any", headers=()) -> Record:
    return Record("audio.uploaded", 2, 41, key, orjson.dumps(UPLOAD) if value is None else value, tuple(headers))


#: Values of megabytes: few of them say it all.
few = settings(max_examples=25, deadline=None)

HEADERS = st.lists(st.tuples(st.text(max_size=8), st.none() | st.integers(0, 400_000).map(bytes)), max_size=6)


@few
@given(HEADERS, st.none() | st.integers(0, 2_000_000).map(bytes), st.none() | st.integers(0, 5_000_000).map(bytes))
def test_every_dead_letter_fits_its_topic(headers, key, value):
    record = Record("audio.uploaded", 2, 41, key, value, tuple(headers))
    letter = dead_letter(record, id=uuid4(), stage="intake", reason="\U0001f600" * 5000, attempts=1)

    assert fits(letter)
    assert wire_size(letter) <= size_of(letter)
    assert letter.value is not None or letter.key is not None, "aiokafka sends no record without both"


def test_a_dead_letter_that_was_cut_says_what_it_was():
    value = b"\x01" * (6 << 20)
    headers = dict(dead_letter(upload(value), id=uuid4(), stage="intake", reason="bad", attempts=1).headers)
    letter = dead_letter(upload(value), id=uuid4(), stage="intake", reason="bad", attempts=1)

    assert value.startswith(letter.value)
    assert len(letter.value) > 4_000_000
    assert headers["dlq-value-length"] == b"%d" % len(value)
    assert headers["dlq-value-sha256"].decode() == hashlib.sha256(value).hexdigest()
    assert headers["dlq-truncated"] == b"value"


def test_ten_thousand_headers_and_a_key_of_megabytes_fit_a_dead_letter():
    record = upload(key=b"k" * (3 << 20), headers=[(f"h{n}", b"v" * 100) for n in range(10_000)])
    letter = dead_letter(record, id=uuid4(), stage="intake", reason="bad", attempts=1)
    headers = dict(letter.headers)

    assert fits(letter)
    assert letter.value == record.value, "a small value is kept whole"
    assert headers["h0"] == b"v" * 100
    assert headers["dlq-key-length"] == b"%d" % (3 << 20)
    assert headers["dlq-headers-count"] == b"10000"
    assert set(headers["dlq-truncated"].decode().split(",")) == {"key", "headers"}


def test_a_record_without_key_and_value_has_a_dead_letter_that_can_be_sent():
    record = Record("audio.uploaded", 2, 41, None, None)
    letter = dead_letter(record, id=uuid4(), stage="intake", reason="empty", attempts=1)

    assert (letter.key, letter.value) == (None, b"")


def test_a_header_that_is_no_text_does_not_stop_its_dead_letter():
    record = upload(headers=[("h\udcff\udcfe", b"1")])
    letter = dead_letter(record, id=uuid4(), stage="intake\udcff", reason="bad \udcff", attempts=1)

    assert wire_size(letter) <= size_of(letter)


@few
@given(HEADERS, st.none() | st.integers(0, 2_000_000).map(bytes), st.integers(0, MAX_VALUE_BYTES - 200))
def test_every_retry_of_what_was_accepted_fits_its_topic(headers, key, length):
    value = orjson.dumps(UPLOAD | {"metadata": {"x": "y" * length}})
    try:
        envelope = decode(upload(value[:MAX_VALUE_BYTES], key, headers), TOPICS)
    except MalformedEvent:
        return  # a stranger's `ce_type`
    retry = again(envelope, "intake.due", id=uuid4(), attempt=1)

    assert size_of(retry) <= MAX_EVENT_BYTES
    assert wire_size(retry) <= size_of(retry)
    assert retry.value == envelope.record.value
    assert decode(Record("intake.due", 0, 0, retry.key, retry.value, retry.headers), TOPICS).data == envelope.data


def test_retries_and_dead_letters_have_no_more_headers_than_are_read():
    """What is read cuts the last headers off, and these are ours."""
    envelope = decode(upload(headers=[(f"h{n}", b"") for n in range(MAX_HEADERS)]), TOPICS)
    retry = again(envelope, "intake.due", id=uuid4(), attempt=1)
    back = Record("intake.due", 0, 7, retry.key, retry.value, retry.headers)
    letters = [
        dead_letter(record, id=uuid4(), stage="intake", reason="bad", attempts=1) for record in (envelope.record, back)
    ]

    assert len(retry.headers) <= MAX_HEADERS
    for letter in letters:
        assert len(letter.headers) < MAX_HEADERS, "one more when it is replayed"
        assert dict(letter.headers)["dlq-truncated"] == b"headers"
        assert dict(letter.headers)["dlq-headers-count"] == b"%d" % MAX_HEADERS


def test_what_a_retry_had_to_leave_out_is_said_by_its_dead_letter():
    envelope = decode(upload(headers=[("h", b"v" * 500_000), ("small", b"1")], key=b"k" * 100_000), TOPICS)
    retry = again(envelope, "intake.due", id=uuid4(), attempt=1)
    back = Record("intake.due", 0, 7, retry.key, retry.value, retry.headers)
    letter = dict(dead_letter(back, id=uuid4(), stage="intake", reason="bad", attempts=4).headers)

    assert letter["small"] == b"1"
    assert letter["dlq-key-length"] == b"100000"
    assert set(letter["dlq-truncated"].decode().split(",")) == {"key", "headers"}


def test_limits_of_external_topics_are_not_those_of_our_own():
    wish = JobReprocess(**WHOSE, reason="x").model_dump_json().encode()
    padded = wish[:-1] + b' ,"more": "' + b"y" * 50_000 + b'"}'
    long = padded + b" " * (950_000 - len(padded))

    assert decode(Record("intake.due", 0, 0, b"j", long, (("ce_type", b"job.reprocess"),)), TOPICS)
    with pytest.raises(MalformedEvent, match="950000 bytes"):
        decode(upload(long), TOPICS)


@few
@given(TEXTS)
def test_a_reason_is_kept_short_wherever_it_goes(text):
    failed = JobFailed(**WHOSE, stage="intake", error=text, attempts=1)
    state = StepState(state="failed", error=text)

    assert len(failed.error) <= 2000
    assert len(state.error or "") <= 2000
    assert "\x00" not in failed.error


def outcomes():
    """What a stage may hand over, with texts of any length wherever texts go."""
    failed = st.builds(lambda t: Progress(run=1, stage="a", step=StepState(state="retrying", error=t), reason=t), TEXTS)
    changed = st.builds(
        lambda text, lang: RequestChange(
            run=1, provider="a", token=None, columns={"state": "failed", "error": text, "language": lang}
        ),
        TEXTS,
        TEXTS,
    )
    later = st.builds(
        lambda t, topic: Later(topic, JobReprocess.model_construct(**WHOSE, reason=t), kind="job.reprocess"),
        TEXTS,
        st.sampled_from(["intake.due", "reconciled", "persisted"]),
    )
    return st.builds(
        lambda progress, request, events, create: Outcome(
            tenant_id="t",
            job_id="j",
            progress=None if create else progress,
            request=None if create else request,
            later=events,
            create=JOB if create else None,
        ),
        st.none() | failed,
        st.none() | changed,
        st.lists(later, max_size=2).map(tuple),
        st.booleans(),
    )


def rows(outcome: Outcome, recognizers: int = 3) -> Rows:
    asked = [ProviderRequest(**WHOSE, provider=name) for name in "abcdefghij"[:recognizers]]
    return Rows(None if outcome.create else JOB, {} if outcome.create else {r.provider: r for r in asked})


@few
@given(outcomes())
def test_every_event_of_a_step_fits_its_topic_and_a_follow_up_that_does_not_ends_the_job(outcome):
    here = rows(outcome)
    written = advance(Step("intake", uuid4(), outcome), here, NOW)
    sent = {m.topic: m for m, _ in written.messages}
    made = [message(e.topic, e.data, id=uuid4(), now=NOW, kind=e.kind) for e in outcome.later]
    lost = [m for m in made if not fits(m)]

    assert written.applied
    assert all(map(fits, sent.values()))
    assert all(wire_size(m) <= KAFKAS_DEFAULT for m in sent.values())
    if lost:
        assert here.job.status == "failed"
        assert "too large" in here.job.reason
        assert set(sent) == {"job.failed", "persist.due", "job.status"}
        assert orjson.loads(sent["job.failed"].value)["error"] == here.job.reason
    else:
        assert "job.failed" not in sent


def test_a_job_whose_follow_up_is_too_large_keeps_what_the_step_has_paid_for():
    request = RequestChange(run=1, provider="a", token=None, columns={"state": "submitted", "provider_id": "p"})
    event = Later("intake.due", JobReprocess.model_construct(**WHOSE, reason="x" * 2_000_000), kind="job.reprocess")
    outcome = Outcome(tenant_id="t", job_id="j", request=request, later=(event,))
    here = rows(outcome)
    advance(Step("transcribe.a", uuid4(), outcome), here, NOW)

    assert here.requests["a"].provider_id == "p"


def test_a_status_of_many_steps_with_long_errors_fits():
    steps = {f"transcribe.{n}": StepState(state="failed", error="\x01" * 5000) for n in range(200)}
    job = replace(JOB, steps=steps)
    outcome = Outcome(tenant_id="t", job_id="j", progress=Progress(run=1, status="failed", reason="\x01" * 9000))
    here = Rows(job, {})
    written = advance(Step("intake", uuid4(), outcome), here, NOW)
    status = next(m for m, _ in written.messages if m.topic == "job.status")

    assert fits(status)
    assert set(JobStatus.model_validate_json(status.value).steps) == set(steps)
