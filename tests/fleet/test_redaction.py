"""Redaction in a fleet: what is planted in calls is nowhere that readers read, and the recording is silent there."""

from __future__ import annotations

import dataclasses
import logging
import re
from datetime import timedelta
from uuid import UUID

import numpy as np
import orjson
import pytest
from pydantic import BaseModel

from agents.llm.scripted import ScriptedAdjudicator
from agents.media.decoding.decoder import decode
from agents.stages.enrichments import document, index, summary
from bench.planted_abroad import SPEECHES, MakerAbroad
from bench.planted_calls import POLICY, Call, Maker
from schemas import blob_names
from schemas.accounts.settings import AccountSettings
from schemas.errors import Unavailable
from schemas.events.job import JobReprocess
from schemas.words import Hypothesis, Reconciliation, Word, adapter
from sinks.blobs.memory import MemoryStore
from tests.fleet.conftest import FakeRecognizer, enriching, recording

#: One call for each three of the twelve kinds.
CALLS = [Maker(5).call(kinds) for kinds in (
    ("card", "security_code", "iban"), ("account", "ssn", "phone"),
    ("email", "address", "date_of_birth"), ("name", "id", "CUSTOMER"),
)]  # fmt: skip

#: Milliseconds of a word, and from one to the next.
WORD_MS, STEP_MS = 350, 400


def job_id(number: int) -> str:
    return str(UUID(int=number + 1))


class Hears(FakeRecognizer):
    """Hears a call's words, by job; `written` makes its own spelling of them."""

    def __init__(self, name, texts, written=lambda word: word):
        super().__init__(name)
        self.texts, self.written = texts, written

    async def poll(self, provider_id):
        words = self.texts[re.search(r"~(.+)~\d+~", provider_id)[1]]
        heard = (Word(self.written(word), STEP_MS * n, STEP_MS * n + WORD_MS, 0.9) for n, word in enumerate(words))
        return Hypothesis(self.name, tuple(heard), self.language, STEP_MS * len(words), 0.9)


def carelessly(word: str) -> str:
    """Without capitals and punctuation; some words are misheard."""
    plain = word.lower().strip(".,?!")
    return {"number": "umber", "thanks": "tanks", "is": "his", "seven": "heaven"}.get(plain, plain)


def length_s(call: Call) -> float:
    return (len(call.words) + 1) * STEP_MS / 1000


def strings(value: object, seen: set[int] | None = None):
    """Every text in a value, however deep."""
    seen = set() if seen is None else seen
    if isinstance(value, str | bytes):
        yield value if isinstance(value, str) else value.decode("utf-8", "replace")
    elif id(value) not in seen:
        seen.add(id(value))
        if isinstance(value, dict):
            parts = [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            parts = list(value)
        elif dataclasses.is_dataclass(value) or isinstance(value, BaseModel) or hasattr(value, "__dict__"):
            names = (
                [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else vars(value)
            )
            parts = [getattr(value, name, None) for name in names]
        else:
            parts = []
        for part in parts:
            if not callable(part):
                yield from strings(part, seen)


def plain(text: str) -> str:
    return " ".join(re.findall(r"[\w@]+", text.lower()))


def needles(call: Call) -> set[str]:
    """What must not be read: each value as a whole, and each of its words that nothing else has."""
    found = set()
    for value in call.planted:
        words = call.words[value.start : value.end]
        found.add(plain(" ".join(words)))
        found |= {plain(word) for word in words if sum(map(str.isdigit, word)) > 3 or "@" in word}
    return found


async def readable(scenario, is_read=lambda name: not blob_names.is_restricted(name)):
    """Everything that is stored or published, by where; of transcripts, also each recognizer's words in a row."""
    database, places = scenario.fleet.database, {}
    async for uri in scenario.store.list(""):
        name = scenario.store.name(uri)
        content = await scenario.store.get(uri)
        if is_read(name) and not name.endswith((".wav", ".flac")):
            places[name] = content.decode() + heard(name, content)
    places["rows"] = "\n".join(strings({name: value for name, value in vars(database).items() if name != "clock"}))
    places["topics"] = "\n".join(strings({topic: list(records) for topic, records in scenario.fleet.log.items()}))
    return places


def heard(name: str, content: bytes) -> str:
    """The words of each recognizer in a raw transcript or a hypothesis, one after the other."""
    if name.endswith("raw_transcript.json"):
        decisions = adapter(Reconciliation).validate_json(content).decisions
        rows = [
            [
                reading.text
                for one in decisions
                for reading in (one.chosen, *one.others)
                if recognizer in reading.providers
            ]
            for recognizer in "ab"
        ]
        return "\n".join(" ".join(text for text in row if text) for row in rows)
    if "/hypotheses/" in name:
        return " ".join(word["text"] for word in orjson.loads(content)["words"])
    return ""


def leaks(places: dict[str, str], calls) -> list[tuple[str, str]]:
    texts = {place: f" {plain(text)} " for place, text in places.items()}
    sought = set().union(*map(needles, calls))
    return [(place, needle) for place, text in texts.items() for needle in sought if f" {needle} " in text]


@pytest.fixture
async def fleet_of(make_scenario):
    """`fleet_of(**options)`: a fleet that has transcribed `CALLS`, with these options of uploads."""

    async def build(calls=CALLS, adjudicator=None, language="en", **options):
        texts = {job_id(n): call.words for n, call in enumerate(calls)}
        recognizers = Hears("a", texts), Hears("b", texts, carelessly)
        for recognizer in recognizers:
            recognizer.language = language
        kinds = (document, summary, index)
        scenario = make_scenario(
            *recognizers, enrichments=tuple(kind.SPEC.name for kind in kinds), adjudicator=adjudicator
        )
        database = scenario.fleet.database
        resources = enriching(scenario.store, database)
        resources.embed_in_background = lambda: None
        stages = [await kind.SPEC.open(resources) for kind in kinds]
        scenario.fleet.stages = [*scenario.fleet.stages, *stages]
        await database.save_account_settings("t", AccountSettings(redaction=POLICY), 0, "key")
        sound = recording(max(map(length_s, calls)))
        for number in range(len(calls)):
            await scenario.upload(job_id(number), content=sound, options=options)
        await scenario.fleet.run(until=timedelta(hours=1))
        return scenario

    return build


async def test_without_redaction_everything_planted_is_read(fleet_of):
    """The search finds what is there."""
    scenario = await fleet_of()
    found = {needle for _, needle in leaks(await readable(scenario), CALLS)}

    assert found == set().union(*map(needles, CALLS))


@pytest.mark.parametrize("redact", ["keep", "forget"])
async def test_nothing_planted_is_stored_published_or_logged_for_readers(fleet_of, caplog, redact):
    caplog.set_level(logging.DEBUG)
    adjudicator = ScriptedAdjudicator()
    scenario = await fleet_of(adjudicator=adjudicator, redact_pii=True, redact=redact)
    places = await readable(scenario)
    places["logs"] = "\n".join(f"{record.getMessage()} {record.exc_text or ''}" for record in caplog.records)
    places["model"] = "\n".join(strings(adjudicator.asked))

    assert len(scenario.fleet.events("persisted")) == len(CALLS)
    assert {row.state for row in scenario.fleet.database.enrichments.values()} == {"done"}
    assert len(scenario.fleet.database.enrichments) == 3 * len(CALLS)
    assert len(adjudicator.asked) > 0
    assert leaks(places, CALLS) == []

    everywhere = await readable(scenario, lambda _: True)
    kept = {needle for _, needle in leaks(everywhere, CALLS)}
    assert kept == (set() if redact == "forget" else set().union(*map(needles, CALLS)))


@pytest.mark.parametrize("language", sorted(SPEECHES))
async def test_nothing_planted_is_readable_in_other_languages(fleet_of, language):
    calls = [MakerAbroad(SPEECHES[language], 5).call(kinds) for kinds in (("card", "iban", "phone"), ("email", "id"))]
    unredacted = await fleet_of(calls, language=language)
    scenario = await fleet_of(calls, language=language, redact_pii=True)

    assert len(scenario.fleet.events("persisted")) == len(calls)
    assert leaks(await readable(unredacted), calls) != []
    assert leaks(await readable(scenario), calls) == []


async def test_a_store_that_is_away_while_a_job_forgets_only_delays_it(fleet_of, monkeypatch):
    delete, errors = MemoryStore.delete, [None, Unavailable("away"), Unavailable("away")]

    async def failing(self, uri):
        if (error := errors.pop() if errors else None) is not None:
            raise error
        await delete(self, uri)

    monkeypatch.setattr(MemoryStore, "delete", failing)
    scenario = await fleet_of(CALLS[3:], redact_pii=True, redact="forget")

    assert len(scenario.fleet.events("persisted")) == 1
    assert errors == []
    assert leaks(await readable(scenario, lambda _: True), CALLS[3:]) == []
    assert [name async for name in names_of(scenario) if "restricted/original" in name] == []


@pytest.mark.parametrize("redact", ["keep", "forget"])
async def test_a_worker_that_ends_behind_any_write_or_deletion_leaves_nothing_readable(fleet_of, monkeypatch, redact):
    """Whatever is stored is stored again by the next worker, and never where readers read before it is redacted."""
    done, leaked, call = set(), [], CALLS[0]
    put, delete = MemoryStore.put, MemoryStore.delete

    def ends_behind(what, name):
        if (what, name) not in done:
            done.add((what, name))
            raise Unavailable("the worker ends")

    async def putting(self, name, content, *more, **options):
        if isinstance(content, bytes) and not blob_names.is_restricted(name):
            leaked.extend(leaks({name: content.decode("utf-8", "replace") + heard(name, content)}, [call]))
        blob = await put(self, name, content, *more, **options)
        if name.startswith(f"t/{job_id(0)}/"):
            ends_behind("put", name)
        return blob

    async def deleting(self, uri):
        await delete(self, uri)
        ends_behind("delete", self.name(uri))

    monkeypatch.setattr(MemoryStore, "put", putting)
    monkeypatch.setattr(MemoryStore, "delete", deleting)
    scenario = await fleet_of([call], redact_pii=True, redact=redact)

    assert {name.removeprefix(f"t/{job_id(0)}/") for what, name in done if what == "put"} >= {
        *("restricted/original.wav", "restricted/hypotheses/a.json", "restricted/hypotheses/b.json"),
        *("audio.redacted.flac", "raw_transcript.json", "agent_optimized.json", "metadata.json", "document.md"),
    }
    assert any(what == "delete" for what, _ in done) or redact == "keep"
    assert [len(scenario.fleet.events(topic)) for topic in ("persisted", "job.failed")] == [1, 0]
    assert leaked == leaks(await readable(scenario), [call]) == []
    assert bool(leaks(await readable(scenario, lambda _: True), [call])) == (redact == "keep")


async def names_of(scenario):
    async for uri in scenario.store.list(""):
        yield scenario.store.name(uri)


async def test_the_recording_is_silent_where_something_is_hidden_and_as_long(fleet_of, tmp_path):
    call = CALLS[0]
    scenario = await fleet_of([call], redact_pii=True)
    [audio] = [row for key, row in scenario.fleet.database.files.items() if key[3] == "redacted_audio"]
    path = tmp_path / "audio.flac"
    path.write_bytes(await scenario.store.get(audio.uri))
    samples = np.concatenate(list(decode(path)))

    assert abs(len(samples) / 16_000 - length_s(call)) < 0.05
    for value in call.planted:
        start, end = value.start * STEP_MS - 240, (value.end - 1) * STEP_MS + WORD_MS + 240
        assert np.abs(samples[start * 16 : end * 16]).max() == 0
    before = (call.planted[0].start - 2) * STEP_MS
    assert np.abs(samples[before * 16 : (before + WORD_MS) * 16]).max() > 0.1


@pytest.mark.parametrize("redact", ["keep", "forget"])
async def test_a_job_is_run_again_from_what_is_left(fleet_of, redact):
    scenario = await fleet_of(CALLS[:1], redact_pii=True, redact=redact)
    database, job = scenario.fleet.database, job_id(0)
    for run, source in ((2, "reconcile"), (3, "transcribe")):
        again = JobReprocess(tenant_id="t", job_id=job, run=run, source=source)
        scenario.fleet.publish(
            "intake.due", again, job.encode(), (("ce_type", b"job.reprocess"), ("ce_id", b"%d" % run))
        )
        await scenario.fleet.run(until=timedelta(hours=1))
        assert [(row.status, row.run) for row in [await database.job("t", job)]] == [("completed", run)]
        assert plain(text_of(database, job, run)) == plain(text_of(database, job, 1))
        assert leaks(await readable(scenario), CALLS[:1]) == []
        assert bool(leaks(await readable(scenario, lambda _: True), CALLS[:1])) == (redact == "keep")


def text_of(database, job, run):
    return database.transcripts["t", job, run].text


async def test_what_recognizers_answer_behind_a_run_that_forgets_is_forgotten_too(fleet_of):
    scenario = await fleet_of(CALLS[:1], redact_pii=True, redact="forget")
    before = [name async for name in names_of(scenario)]
    said = adapter(Hypothesis).dump_json(Hypothesis("a", tuple(Word(text) for text in CALLS[0].words)))
    for name in (
        blob_names.chunk("t", job_id(0), "c", "key", restricted=True),
        blob_names.hypothesis("t", job_id(0), 1, "a", restricted=True),
        blob_names.hypothesis("t", job_id(0), 1, "c", restricted=True),
    ):
        await scenario.store.put(name, said, "application/json")
    assert leaks(await readable(scenario, lambda _: True), CALLS[:1]) != []
    await scenario.fleet.run(until=timedelta(hours=3))

    assert [name async for name in names_of(scenario)] == before
    assert leaks(await readable(scenario, lambda _: True), CALLS[:1]) == []
    assert len(scenario.fleet.events("persisted")) == 1
