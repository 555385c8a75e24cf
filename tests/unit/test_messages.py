"""Encoding and decoding of events: input of external producers, ids, and what dead letters keep."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.stages import registry
from schemas.envelope import Flaw, Record, decode, identity
from schemas.errors import MalformedEvent
from schemas.events.audio import AudioUploaded
from schemas.events.job import JobFailed, JobStatus
from schemas.messages import again, dead_letter, dump_headers, load_headers, message, traceparent

UPLOAD = {"tenant_id": "t", "audio_uri": "https://example.com/a.wav", "filename": "a.wav"}
NOW = datetime(2026, 1, 2, tzinfo=UTC)
TOPICS = {t.name: t for t in (*registry.all_topics(("a",)),)}


def upload(headers=(), **fields) -> Record:
    return Record("audio.uploaded", 2, 41, b"any key", orjson.dumps(UPLOAD | fields), tuple(headers))


def test_plain_json_without_headers_is_an_upload():
    event = decode(upload(), TOPICS)

    assert isinstance(event.data, AudioUploaded)
    assert (event.type, event.attempt, event.replay) == ("audio.uploaded", 0, 0)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "empty"),
        (b"", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[]", "object"),
        (b'{"tenant_id": "t"', "JSON"),
        (b"[" * 100_000, "JSON"),
        (b'{"a": "' + b"x" * 1_000_000 + b'"}', "bytes"),
        (orjson.dumps({"tenant_id": "t"}), "audio_uri"),
        (orjson.dumps(UPLOAD | {"tenant_id": "../other"}), "tenant_id"),
        (orjson.dumps(UPLOAD | {"tenant_id": "a..b"}), "tenant_id"),
        (orjson.dumps(UPLOAD | {"tenant_id": "a/b"}), "tenant_id"),
        (orjson.dumps(UPLOAD | {"job_id": ""}), "job_id"),
        (orjson.dumps(UPLOAD | {"job_id": "a\u0000b"}), "job_id"),
        (orjson.dumps(UPLOAD | {"job_id": "j" * 129}), "job_id"),
        (orjson.dumps(UPLOAD | {"job_id": "order-1", "reference": "order-2"}), "job_id is not a UUID"),
        (orjson.dumps(UPLOAD | {"job_id": "00000000-0000-0000-0000-000000000000"}), "nil UUID"),
        (orjson.dumps(UPLOAD | {"reference": ""}), "reference"),
        (orjson.dumps(UPLOAD | {"reference": "   "}), "reference"),
        (orjson.dumps(UPLOAD | {"reference": "two\nlines"}), "reference"),
        (orjson.dumps(UPLOAD | {"reference": "r" * 256}), "reference"),
        (orjson.dumps(UPLOAD | {"audio_uri": "/etc/passwd"}), "audio_uri"),
        *(
            (orjson.dumps(UPLOAD | {"audio_uri": uri}), "audio_uri")
            for uri in (
                "s3://b/a\nb",
                "s3://b/a\u0000",
                "s3://b/a ",
                "s3:// b",
                "s3://",
                "s3://b/\u0085",
                "s3://b/\u2028.",
            )
        ),
        (orjson.dumps(UPLOAD | {"priority": 10}), "priority"),
        (orjson.dumps(UPLOAD | {"language": "english please"}), "language"),
        (orjson.dumps(UPLOAD | {"metadata": {str(n): n for n in range(65)}}), "metadata"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_to_mend(value, says):
    with pytest.raises(MalformedEvent, match=says):
        decode(Record("audio.uploaded", 0, 0, None, value), TOPICS)


def test_a_refusal_does_not_repeat_the_value():
    with pytest.raises(MalformedEvent) as refused:
        decode(upload(tenant_id="my secret/"), TOPICS)

    assert "my secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a.wav", "a.wav"),
        ("../../etc/passwd", "passwd"),
        ("C:\\calls\\a.wav", "a.wav"),
        ("..", "audio"),
        ("a\nb.wav", "ab.wav"),
    ],
)
def test_a_filename_is_a_label_and_never_a_path(sent, kept):
    assert decode(upload(filename=sent), TOPICS).data.filename == kept


@pytest.mark.parametrize("uri", ["s3://b/My Call (2).wav", "file:///in/50% #1?.wav", "S3://b/Grüße.wav", "x://y"])
def test_a_uri_may_be_what_keys_and_files_are_called(uri):
    assert decode(upload(audio_uri=uri), TOPICS).data.audio_uri == uri


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_being_refused(value):
    try:
        decode(Record("audio.uploaded", 0, 0, None, value), TOPICS)
    except MalformedEvent:
        return


def test_a_type_that_does_not_belong_on_the_topic_is_refused():
    with pytest.raises(MalformedEvent, match="ce_type"):
        decode(upload([("ce_type", b"persisted")]), TOPICS)


def test_the_same_event_has_the_same_identity_wherever_it_stands():
    headers = [("ce_id", b"42"), ("ce_source", b"/crm")]
    here = decode(upload(headers), TOPICS).id
    there = decode(Record("audio.uploaded", 0, 7, None, orjson.dumps(UPLOAD), tuple(headers)), TOPICS).id

    assert here == there


def test_one_tenants_event_id_says_nothing_about_anothers():
    headers = [("ce_id", b"42"), ("ce_source", b"/crm")]

    assert decode(upload(headers), TOPICS).id != decode(upload(headers, tenant_id="other"), TOPICS).id


def test_an_external_producer_can_neither_forge_our_events_nor_choose_the_topic_of_a_dead_letter():
    id = uuid4()
    record = upload([("ce_id", str(id).encode()), ("ce_source", b"/concord"), ("concord-origin", b"persisted/0/1")])

    assert decode(record, TOPICS).id != id
    assert record.origin == ("audio.uploaded", 2, 41, 0)


@pytest.mark.parametrize(
    ("sent", "job_id", "reference"),
    [
        ({}, None, None),
        ({"job_id": "4711CA11-0000-4000-8000-00000000000A"}, "4711ca11-0000-4000-8000-00000000000a", None),
        ({"job_id": "4711ca1100004000800000000000000a"}, "4711ca11-0000-4000-8000-00000000000a", None),
        ({"job_id": "order-1"}, None, "order-1"),
        ({"job_id": "order-1", "reference": "order-1"}, None, "order-1"),
        ({"reference": "Gespräch 2026/11/21 #17"}, None, "Gespräch 2026/11/21 #17"),
    ],
)
def test_a_job_id_is_a_uuid_and_anything_else_a_reference(sent, job_id, reference):
    data = decode(upload(**sent), TOPICS).data

    assert (data.job_id, data.reference) == (job_id, reference)


PLAIN = Record("audio.uploaded", 2, 41, b"any key", orjson.dumps(UPLOAD), (), 1_795_000_000_000)


@pytest.mark.parametrize(
    "other",
    [
        {"offset": 42},
        {"partition": 1},
        {"timestamp_ms": 1_795_000_000_001},
        {"value": orjson.dumps(UPLOAD | {"filename": "b.wav"})},
    ],
)
def test_an_event_without_id_is_identified_by_its_position_timestamp_and_value(other):
    """A topic that was made again has other records at the places of the earlier ones."""
    assert decode(PLAIN, TOPICS).id == decode(replace(PLAIN), TOPICS).id == identity(PLAIN)
    assert decode(PLAIN, TOPICS).id != decode(replace(PLAIN, **other), TOPICS).id


@pytest.mark.parametrize("headers", [[("ce_id", b"1")], [("ce_id", b"1"), ("ce_source", b"/crm")]])
def test_a_producer_that_gives_all_events_one_id_loses_no_recording(headers):
    one, two = upload(headers), upload(headers, audio_uri="https://example.com/b.wav")
    named = upload(headers, job_id="order-1")

    assert len({decode(record, TOPICS).id for record in (one, two, named)}) == 3


@pytest.mark.parametrize("ce_id", [b"", b"  "])
def test_an_empty_id_is_none(ce_id):
    headers = (("ce_id", ce_id), ("ce_source", b"/crm"))

    assert decode(replace(PLAIN, headers=headers), TOPICS).id == decode(PLAIN, TOPICS).id


def test_a_huge_id_is_an_id():
    headers = (("ce_id", b"x" * 500_000),)

    assert decode(upload(headers), TOPICS).id == decode(replace(PLAIN, headers=headers), TOPICS).id


def test_retries_of_retries_remember_the_event_that_came_first():
    first = decode(PLAIN, TOPICS)
    record = PLAIN
    for attempt in range(3):
        sent = again(decode(record, TOPICS), "intake.due", id=uuid4(), attempt=attempt)
        record = Record("intake.due", 0, 9 + attempt, sent.key, sent.value, sent.headers, 1_795_000_009_000)
    back = decode(record, TOPICS)

    assert back.root == first.id == first.root
    assert back.id != first.id
    assert record.origin == PLAIN.origin == ("audio.uploaded", 2, 41, 1_795_000_000_000)


def test_an_external_producer_cannot_declare_its_upload_a_retry():
    record = upload([("concord-root", str(uuid4()).encode())])

    assert decode(record, TOPICS).root == decode(record, TOPICS).id


def test_a_retry_that_an_earlier_version_wrote_has_an_origin_without_a_time():
    record = Record("intake.due", 0, 9, None, b"", (("concord-origin", b"audio.uploaded/2/41"),), 7)

    assert record.origin == ("audio.uploaded", 2, 41, 0)


def test_whose_job_a_message_is_about_stands_beside_it():
    data = JobFailed(tenant_id="t", job_id="j", run=3, stage="intake", error="no", attempts=1)
    sent = message("job.failed", data, id=uuid4(), now=NOW)
    retried = again(decode(upload(tenant_id="acme", job_id="order-1"), TOPICS), "intake.due", id=uuid4(), attempt=1)
    letter = dead_letter(upload(), id=uuid4(), stage="intake", reason="bad", attempts=1, of=data)

    assert (sent.tenant_id, sent.job_id, sent.run) == ("t", "j", 3)
    assert (retried.tenant_id, retried.job_id) == ("acme", None)
    assert (letter.tenant_id, letter.job_id, letter.run) == ("t", "j", 3)
    assert dict(letter.headers)["dlq-job-id"] == b"j"


def test_a_status_is_keyed_by_tenant_and_job_as_the_table_is():
    status = JobStatus(
        tenant_id="t", job_id="j", status="uploaded", version=1, filename="a", steps={}, created_at=NOW, updated_at=NOW
    )

    assert message("job.status", status, id=uuid4(), now=NOW).key == b"t/j"


def test_a_replayed_event_is_another_event():
    headers = [("ce_id", b"42"), ("ce_source", b"/crm")]

    assert decode(upload(headers), TOPICS).id != decode(upload([*headers, ("ce_replay", b"1")]), TOPICS).id


def test_our_events_are_cloudevents_in_binary_mode():
    id = UUID(int=7)
    data = JobFailed(tenant_id="t", job_id="j", stage="intake", error="no", attempts=1)
    sent = message("job.failed", data, id=id, now=NOW)
    headers = dict(sent.headers)

    assert sent.key == b"j"
    assert headers["content-type"] == b"application/json"
    assert headers["ce_specversion"] == b"1.0"
    assert (headers["ce_id"], headers["ce_type"], headers["ce_source"]) == (
        str(id).encode(),
        b"job.failed",
        b"/concord",
    )
    assert [k for k, _ in sent.headers].count("traceparent") == 1


def test_a_trace_is_continued_with_a_span_of_its_own():
    cause = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    id = uuid4()

    assert traceparent(cause, id).startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert traceparent(cause, id) != cause
    assert traceparent(cause, id) == traceparent(cause, id)
    assert traceparent("nonsense", id).startswith(f"00-{id.hex}-")


def test_a_retry_is_the_same_bytes_with_its_attempt_and_origin():
    record = upload([("ce_id", b"42"), ("ce_source", b"/crm"), ("mine", b"\xff\x00")])
    sent = again(decode(record, TOPICS), "intake.due", id=uuid4(), attempt=2)
    back = decode(Record("intake.due", 0, 9, sent.key, sent.value, sent.headers), TOPICS)

    assert (sent.key, sent.value) == (record.key, record.value)
    assert (back.attempt, back.type) == (2, "audio.uploaded")
    assert back.record.origin == ("audio.uploaded", 2, 41, 0)
    assert ("mine", b"\xff\x00") in sent.headers


def test_a_dead_letter_is_the_record_as_it_came_and_why():
    record = Record("audio.uploaded", 2, 41, b"\xff", b"\x00not json", (("h", b"\xfe"),))
    letter = dead_letter(record, id=uuid4(), stage="intake", reason="bad", attempts=1)
    headers = dict(letter.headers)

    assert (letter.topic, letter.key, letter.value) == ("audio.uploaded.dlq", b"\xff", b"\x00not json")
    assert headers["h"] == b"\xfe"
    assert (headers["dlq-topic"], headers["dlq-partition"], headers["dlq-offset"]) == (b"audio.uploaded", b"2", b"41")
    assert headers["dlq-reason"] == b"bad"


def test_a_record_with_a_flaw_is_refused_and_its_dead_letter_says_what_was_left_out():
    flaw = Flaw("the value has 150000000 bytes; 900000 are kept", (150_000_000, "ab" * 32), (39, 41))
    record = Record("audio.uploaded", 2, 41, None, b'{"tenant_id": "acme"', flaw=flaw)
    with pytest.raises(MalformedEvent, match="150000000 bytes"):
        decode(record, TOPICS)
    headers = dict(dead_letter(record, id=uuid4(), stage="intake", reason="bad", attempts=1).headers)

    assert headers["dlq-value-length"] == b"150000000"
    assert headers["dlq-value-sha256"] == b"ab" * 32
    assert headers["dlq-offsets"] == b"39-41"
    assert headers["dlq-truncated"] == b"value"


def test_a_dead_letter_that_is_cut_once_more_says_how_long_the_whole_value_was():
    record = Record("audio.uploaded", 2, 41, None, bytes(5 << 20), flaw=Flaw("too long", (9 << 20, "ab" * 32)))
    headers = dead_letter(record, id=uuid4(), stage="intake", reason="bad", attempts=1).headers

    assert [value for name, value in headers if name == "dlq-value-length"] == [b"%d" % (9 << 20)]


@given(st.lists(st.tuples(st.text(max_size=20), st.none() | st.binary(max_size=40))))
def test_any_headers_survive_the_outbox(headers):
    assert load_headers(dump_headers(tuple(headers))) == headers
