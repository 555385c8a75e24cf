"""Compares what the observers of a run have recorded with the guarantees that hold whatever was killed."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields

from agents.fleet.settings import Settings
from agents.stages import registry
from schemas import topics
from schemas.envelope import Record, decode, identity
from schemas.errors import MalformedEvent
from schemas.topics import Topic
from tests.system.observers import (
    TENANT,
    Downstream,
    OffsetSampler,
    Publisher,
    StatusObserver,
    StatusPoller,
    TopicRecorder,
)


@dataclass
class Verdict:
    """Violations of each guarantee, with the jobs and positions to look at; clean if there are none."""

    #: Uploads without a terminal event, malformed records without a dead letter, missing versions of `job.status`.
    lost: list[str] = field(default_factory=list)
    #: Runs with more than one terminal event, terminal events of unknown jobs, and records with more than
    #: one dead letter.
    duplicated: list[str] = field(default_factory=list)
    #: Event ids that occur more than once on a topic.
    repeated: list[str] = field(default_factory=list)
    #: Runs that completed instead of failing, or failed instead of completing.
    wrong: list[str] = field(default_factory=list)
    #: Statuses, on `job.status` or over HTTP, that went back to an older version or changed after the end of a run.
    backward: list[str] = field(default_factory=list)
    #: Recognizers that charged more than once, or never, for the same (job, run).
    charged: list[str] = field(default_factory=list)
    #: Records below a committed offset that had not been handled when it was committed.
    passed: list[str] = field(default_factory=list)
    #: Files or rows that were missing or incomplete when their completion was received.
    torn: list[str] = field(default_factory=list)
    #: Observers that ended early, so that later events were not observed.
    blind: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether every guarantee held."""
        return not any(getattr(self, f.name) for f in fields(self))

    @property
    def counts(self) -> dict[str, int]:
        """The number of violations of each guarantee."""
        return {f.name: len(getattr(self, f.name)) for f in fields(self)}

    def __str__(self) -> str:
        lines = [
            f"{f.name}: {len(violations)}, such as {'; '.join(violations[:4])}"
            for f in fields(self)
            if (violations := getattr(self, f.name))
        ]
        return "\n".join(lines) or "clean"


def inputs(recognizers: Iterable[str]) -> dict[str, dict[str, Topic]]:
    """The input topics of each stage, by name, of a fleet that makes of transcripts what is made by default."""
    kinds = Settings.model_fields["enrichments"].default
    specs = [spec for spec in registry.stages(recognizers, kinds) if spec.table is None]
    return {spec.name: {topic.name: topic for topic in spec.reads} for spec in specs}


def verdict_on(
    publisher: Publisher,
    downstreams: Sequence[Downstream],
    statuses: StatusObserver,
    poller: StatusPoller,
    recorder: TopicRecorder,
    sampler: OffsetSampler,
    charges: Counter[str],
    recognizers: Sequence[str],
    *,
    all_heard: bool = True,
) -> Verdict:
    """Check all guarantees. With `all_heard`, a completed transcript must have the words of every recognizer. Without,
    recognizers fail so often that a run may complete with the words of one, or fail because none has a result.
    """
    verdict = Verdict()
    for observer, downstream in enumerate(downstreams):
        _terminal(verdict, publisher, downstream, f"observer {observer}", all_heard=all_heard)
        verdict.torn += downstream.torn
    _enrichments(verdict, recorder)
    _letters(verdict, publisher, recorder)
    _ids(verdict, recorder)
    verdict.backward += statuses.backward + poller.backward
    verdict.wrong += poller.wrong
    verdict.lost += statuses.missed
    _charges(verdict, publisher, downstreams[0], charges, recognizers, all_heard=all_heard)
    _offsets(verdict, recorder, sampler, recognizers)
    for client in (*(d.follower for d in downstreams), statuses.follower, recorder.follower, sampler, poller):
        if (failure := client.failure()) is not None:
            verdict.blind.append(f"{type(client).__name__}: {failure!r}")
    return verdict


def _terminal(verdict: Verdict, publisher: Publisher, downstream: Downstream, name: str, *, all_heard: bool) -> None:
    for job, upload in publisher.uploads.items():
        seen = downstream.seen.get((job, 1), [])
        if not seen:
            verdict.lost.append(f"{job} ({name})")
        if len(seen) > 1:
            verdict.duplicated.append(f"{job}: {[s.topic for s in seen]} ({name})")
        expected = "job.failed" if upload.without_audio else "persisted"
        unheard = "\0" if all_heard else "no recognizer has heard it"
        wrong = [s for s in seen if s.topic != expected and not s.error.startswith(unheard)]
        verdict.wrong += [f"{job}: {s.topic} {s.error!r} instead of {expected} ({name})" for s in wrong]
    unexpected = [f"{job}/{run}" for job, run in downstream.seen if run != 1 or job not in publisher.uploads]
    verdict.duplicated += [f"{run}: a terminal event without an upload ({name})" for run in unexpected]


def _enrichments(verdict: Verdict, recorder: TopicRecorder) -> None:
    """Each enrichment of a run has at most one terminal event."""
    ends: Counter[tuple[str, int, str]] = Counter()
    announced = {topic.name for spec in registry.STAGES if spec.enrichment for topic in spec.publishes}
    for (topic, _, _), record in recorder.records.items():
        if topic in announced:
            event = json.loads(record.value)
            ends[event["job_id"], event["run"], event["kind"]] += 1
    verdict.duplicated += [f"{run}: {count} events end it" for run, count in ends.items() if count > 1]


def _letters(verdict: Verdict, publisher: Publisher, recorder: TopicRecorder) -> None:
    malformed = {value for value, _ in publisher.malformed}
    letters: Counter[tuple[str, str, str]] = Counter()
    for (topic, _, _), record in recorder.records.items():
        if topic.endswith(".dlq"):
            headers = {key: value.decode() for key, value in record.headers}
            letters[headers["dlq-topic"], headers["dlq-partition"], headers["dlq-offset"]] += 1
            malformed.discard(record.value)
    verdict.lost += [f"no dead letter for {value[:60]!r}" for value in malformed]
    verdict.duplicated += [
        f"{count} dead letters for {'/'.join(position)}" for position, count in letters.items() if count > 1
    ]


def _ids(verdict: Verdict, recorder: TopicRecorder) -> None:
    """Each event of Concord is on its topic once, so that a consumer need not deduplicate by `ce_id`."""
    ids: Counter[tuple[str, str]] = Counter()
    for (topic, _, _), record in recorder.records.items():
        if topic not in topics.INGRESS and not topic.endswith(".dlq"):
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
    verdict.charged += [
        f"{marker}: charged without a request" for marker in charges if not marker.startswith("concord-")
    ]
    for job in publisher.uploads:
        heard = downstream.heard.get((job, 1))
        if heard is not None and all_heard and set(heard) != set(recognizers):
            verdict.wrong.append(f"{job}: has the words of {heard} only")
        for name in heard or ():
            if f"concord-{TENANT}~{job}~1~{name}" not in charges:
                verdict.charged.append(f"{job}: {name} has a result that was never charged")


def _offsets(verdict: Verdict, recorder: TopicRecorder, sampler: OffsetSampler, recognizers: Sequence[str]) -> None:
    """In every sample, committed offsets are at or below the lowest unfinished record."""
    for stage, read in inputs(recognizers).items():
        for (topic, partition, offset), raw in recorder.records.items():
            if topic not in read or _not_remembered(topic, raw):
                continue
            below = [
                n
                for n, committed in sampler.committed.get((f"concord.{stage}", topic, partition), ())
                if committed > offset
            ]
            handled = sampler.handled.get((stage, str(_id(raw, read))))
            if below and (handled is None or handled > below[0]):
                when = "never handled" if handled is None else f"handled by sample {handled}"
                verdict.passed.append(f"{stage} committed {topic}/{partition}/{offset} in sample {below[0]}, {when}")


def _not_remembered(topic: str, raw: object) -> bool:
    """Whether it is a result that is not the last of its run: it is committed without being added to the inbox."""
    with contextlib.suppress(ValueError):
        return topic == "asr.results" and bool(json.loads(raw.value).get("remaining"))  # type: ignore[attr-defined]
    return False


def _id(raw: object, read: dict[str, Topic]) -> object:
    record = Record(raw.topic, raw.partition, raw.offset, raw.key, raw.value, tuple(raw.headers), raw.timestamp)  # type: ignore[attr-defined]
    try:
        return decode(record, read).id
    except MalformedEvent:
        return identity(record)
