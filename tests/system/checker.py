"""The verdict on a run: what strangers saw, against what must hold whatever was killed."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields

from agents.stages import registry
from schemas import topics
from schemas.envelope import Record, decode, identity
from schemas.errors import MalformedEvent
from schemas.topics import Topic
from tests.system.observers import TENANT, Asker, Downstream, Publisher, Sampler, Statuses, Tap


@dataclass
class Verdict:
    """Everything that went against a guarantee, each with where to look; clean when there is nothing."""

    #: Accepted, and no terminal event (or no dead letter, for what was no upload); a version of `job.status` left out.
    lost: list[str] = field(default_factory=list)
    #: More than one terminal event of a run, or one of a job that nobody uploaded; more than one dead letter of a
    #: record.
    duplicated: list[str] = field(default_factory=list)
    #: An event id that stands more than once on a topic.
    repeated: list[str] = field(default_factory=list)
    #: A completion or failure that is not the one the upload must come to.
    wrong: list[str] = field(default_factory=list)
    #: `job.status`, or the answer to who asks for it, that went down or on after the end.
    backward: list[str] = field(default_factory=list)
    #: Recognizers that were paid more than once for the same (job, run), or not at all.
    charged: list[str] = field(default_factory=list)
    #: Records below a committed offset that were not handled when it was committed.
    passed: list[str] = field(default_factory=list)
    #: Files or rows that were not there, or not whole, when their completion was seen.
    torn: list[str] = field(default_factory=list)
    #: Observers that ended early: what came after was seen by nobody.
    blind: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether every guarantee held."""
        return not any(getattr(self, f.name) for f in fields(self))

    @property
    def counts(self) -> dict[str, int]:
        """How many of each."""
        return {f.name: len(getattr(self, f.name)) for f in fields(self)}

    def __str__(self) -> str:
        said = [
            f"{f.name}: {len(found)}, as {'; '.join(found[:4])}"
            for f in fields(self)
            if (found := getattr(self, f.name))
        ]
        return "\n".join(said) or "clean"


def inputs(recognizers: Iterable[str]) -> dict[str, dict[str, Topic]]:
    """What each stage reads, by topic name."""
    specs = [spec for spec in registry.stages(recognizers) if spec.table is None]
    return {spec.name: {topic.name: topic for topic in spec.reads} for spec in specs}


def verdict_on(
    publisher: Publisher,
    downstreams: Sequence[Downstream],
    statuses: Statuses,
    asker: Asker,
    tap: Tap,
    sampler: Sampler,
    charges: Counter[str],
    recognizers: Sequence[str],
    *,
    all_heard: bool = True,
) -> Verdict:
    """The verdict. With `all_heard`, a completed transcript must have the words of every recognizer; without,
    recognizers were made to fail so often that a run may end with the words of one, or with nobody having heard it.
    """
    verdict = Verdict()
    for observer, downstream in enumerate(downstreams):
        _terminal(verdict, publisher, downstream, f"observer {observer}", all_heard=all_heard)
        verdict.torn += downstream.torn
    _enrichments(verdict, tap)
    _letters(verdict, publisher, tap)
    _ids(verdict, tap)
    verdict.backward += statuses.backward + asker.backward
    verdict.wrong += asker.wrong
    verdict.lost += statuses.missed
    _charges(verdict, publisher, downstreams[0], charges, recognizers, all_heard=all_heard)
    _offsets(verdict, tap, sampler, recognizers)
    for watching in (*(d.follower for d in downstreams), statuses.follower, tap.follower, sampler, asker):
        if (failure := watching.failure()) is not None:
            verdict.blind.append(f"{type(watching).__name__}: {failure!r}")
    return verdict


def _terminal(verdict: Verdict, publisher: Publisher, downstream: Downstream, who: str, *, all_heard: bool) -> None:
    for job, upload in publisher.uploads.items():
        seen = downstream.seen.get((job, 1), [])
        if not seen:
            verdict.lost.append(f"{job} ({who})")
        if len(seen) > 1:
            verdict.duplicated.append(f"{job}: {[s.topic for s in seen]} ({who})")
        expected = "job.failed" if upload.hopeless else "persisted"
        unheard = "\0" if all_heard else "no recognizer has heard it"
        wrong = [s for s in seen if s.topic != expected and not s.error.startswith(unheard)]
        verdict.wrong += [f"{job}: {s.topic} {s.error!r} instead of {expected} ({who})" for s in wrong]
    strangers = [f"{job}/{run}" for job, run in downstream.seen if run != 1 or job not in publisher.uploads]
    verdict.duplicated += [f"{run}: a terminal event that nobody asked for ({who})" for run in strangers]


def _enrichments(verdict: Verdict, tap: Tap) -> None:
    """One event ends each enrichment of a run."""
    ends: Counter[tuple[str, int, str]] = Counter()
    announced = {topic.name for spec in registry.STAGES if spec.enrichment for topic in spec.publishes}
    for (topic, _, _), record in tap.records.items():
        if topic in announced:
            event = json.loads(record.value)
            ends[event["job_id"], event["run"], event["kind"]] += 1
    verdict.duplicated += [f"{run}: {count} events end it" for run, count in ends.items() if count > 1]


def _letters(verdict: Verdict, publisher: Publisher, tap: Tap) -> None:
    rubbish = {value for value, _ in publisher.rubbish}
    letters: Counter[tuple[str, str, str]] = Counter()
    for (topic, _, _), record in tap.records.items():
        if topic.endswith(".dlq"):
            headers = {key: value.decode() for key, value in record.headers}
            letters[headers["dlq-topic"], headers["dlq-partition"], headers["dlq-offset"]] += 1
            rubbish.discard(record.value)
    verdict.lost += [f"no dead letter for {value[:60]!r}" for value in rubbish]
    verdict.duplicated += [
        f"{count} dead letters for {'/'.join(place)}" for place, count in letters.items() if count > 1
    ]


def _ids(verdict: Verdict, tap: Tap) -> None:
    """Concord's own events, once each: a consumer downstream may rely on `ce_id`, and need not."""
    ids: Counter[tuple[str, str]] = Counter()
    for (topic, _, _), record in tap.records.items():
        if topic != topics.UPLOADED.name and not topic.endswith(".dlq"):
            ids[topic, dict(record.headers)["ce_id"].decode()] += 1
    verdict.repeated += [f"{count} times {id} on {topic}" for (topic, id), count in ids.items() if count > 1]


def _charges(
    verdict: Verdict,
    publisher: Publisher,
    downstream: Downstream,
    charges: Counter[str],
    recognizers: Sequence[str],
    *,
    all_heard: bool,
) -> None:
    verdict.charged += [f"{marker}: {count} times" for marker, count in charges.items() if count > 1]
    verdict.charged += [f"{marker}: asked by nobody" for marker in charges if not marker.startswith("concord-")]
    for job in publisher.uploads:
        heard = downstream.heard.get((job, 1))
        if heard is not None and all_heard and set(heard) != set(recognizers):
            verdict.wrong.append(f"{job}: heard by {heard} only")
        for name in heard or ():
            if f"concord-{TENANT}~{job}~1~{name}" not in charges:
                verdict.charged.append(f"{job}: {name} was heard, but never paid")


def _offsets(verdict: Verdict, tap: Tap, sampler: Sampler, recognizers: Sequence[str]) -> None:
    """Committed never passes the lowest unfinished, in any sample."""
    places = {stage: f"concord.{stage}" for stage in inputs(recognizers)}
    for stage, read in inputs(recognizers).items():
        for (topic, partition, offset), raw in tap.records.items():
            if topic not in read or _needs_nobody(topic, raw):
                continue
            below = [
                n for n, committed in sampler.committed.get((places[stage], topic, partition), ()) if committed > offset
            ]
            handled = sampler.handled.get((stage, str(_id(raw, read))))
            if below and (handled is None or handled > below[0]):
                when = "never handled" if handled is None else f"handled by sample {handled}"
                verdict.passed.append(f"{stage} committed {topic}/{partition}/{offset} in sample {below[0]}, {when}")


def _needs_nobody(topic: str, raw: object) -> bool:
    """Whether it is a result that is not the last of its run: it is committed, and not remembered."""
    with contextlib.suppress(ValueError):
        return topic == "asr.results" and bool(json.loads(raw.value).get("remaining"))  # type: ignore[attr-defined]
    return False


def _id(raw: object, read: dict[str, Topic]) -> object:
    record = Record(raw.topic, raw.partition, raw.offset, raw.key, raw.value, tuple(raw.headers), raw.timestamp)  # type: ignore[attr-defined]
    try:
        return decode(record, read).id
    except MalformedEvent:
        return identity(record)
