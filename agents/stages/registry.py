"""The only list of stages, and what is derived from it: roles, topics, and the readers of each topic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from agents.runtime.kafka.client import Kafka
from agents.runtime.kafka.topic_layout import TopicLayout, layout
from agents.stages import fetch, hypotheses, intake, persist, reconcile, track, transcribe
from agents.stages.enrichments import document, index, mail, report, summary
from agents.stages.spec import StageSpec
from schemas.envelope import Envelope
from schemas.errors import SettingsError
from schemas.jobs.outcome import Failure, Outcome
from schemas.topics import FAILED, STATUS, Topic

#: All stages, in the order in which a recording passes them.
STAGES: tuple[StageSpec, ...] = (
    intake.SPEC,
    fetch.SPEC,
    transcribe.SPEC,
    hypotheses.SPEC,
    reconcile.SPEC,
    persist.SPEC,
    document.SPEC,
    summary.SPEC,
    index.SPEC,
    report.SPEC,
    mail.SPEC,
    track.SPEC,
)

#: Topics to which every stage may publish.
BY_ALL: tuple[Topic, ...] = (FAILED, STATUS)

#: The role that publishes the outbox. It is not a stage.
RELAY = "relay"

#: The role that sends tenants' webhooks. It is not a stage either: deliveries are rows, not Kafka events.
WEBHOOKS = "webhooks"

#: The roles that are not stages.
NO_STAGES = (RELAY, WEBHOOKS)

#: The role that stands for all enrichments, so that a deployment need not list them.
ENRICHMENTS = "enrichments"


def stages(recognizers: Iterable[str], kinds: Sequence[str] | None = None) -> tuple[StageSpec, ...]:
    """The stages of a fleet with these recognizers and kinds of enrichment (None for all kinds).

    Raises:
        SettingsError: There is no such kind of enrichment.
    """
    if unknown := [kind for kind in kinds or () if kind not in enrichments()]:
        there = ", ".join(enrichments())
        raise SettingsError(f"CONCORD_ENRICHMENTS: there is no {', '.join(unknown)}; there are {there}, or none")
    wanted = enrichments() if kinds is None else kinds
    used = [spec for spec in STAGES if spec.enrichment is None or spec.enrichment in wanted]
    names = tuple(recognizers)
    return tuple(one for spec in used for one in _instances(spec, names))


def _instances(spec: StageSpec, recognizers: Sequence[str]) -> list[StageSpec]:
    if spec.per_recognizer is not None:
        return [spec.for_recognizer(name) for name in recognizers]
    return [spec] if spec.used_with is None or any(map(spec.used_with, recognizers)) else []


def enrichments() -> tuple[str, ...]:
    """Every kind of enrichment that there is."""
    return tuple(spec.enrichment for spec in STAGES if spec.enrichment)


def roles(recognizers: Iterable[str], kinds: Sequence[str] | None = None) -> tuple[str, ...]:
    """All roles of `concord worker`; `concord up` has all of them. Raises `SettingsError` as `stages` does."""
    return (*(spec.name for spec in stages(recognizers, kinds)), *NO_STAGES)


def all_topics(recognizers: Iterable[str]) -> tuple[Topic, ...]:
    """Every topic of a fleet with these recognizers, except dead letter topics."""
    topics = [topic for spec in stages(recognizers) for topic in (*spec.reads, *spec.publishes)]
    return tuple({topic.name: topic for topic in (*topics, *BY_ALL)}.values())


def read_by(recognizers: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """By topic, the stages that read it. Topics that no stage reads are left out."""
    readers: dict[str, tuple[str, ...]] = {}
    for spec in stages(recognizers):
        for topic in spec.reads:
            readers[topic.name] = (*readers.get(topic.name, ()), spec.name)
    return readers


def layouts(kafka: Kafka, recognizers: Iterable[str]) -> tuple[TopicLayout, ...]:
    """The configuration in Kafka of every topic of a fleet with these recognizers, with dead letters and changelogs."""
    names = tuple(recognizers)
    return layout(kafka, all_topics(names), [spec.table for spec in stages(names) if spec.table])


def refusals() -> dict[str, tuple[Topic, Callable[[Envelope, Failure], Outcome | None]]]:
    """By name of a `due` topic: the topic, and the outcome of an event for it that Kafka refuses for good. If there is
    none, the run fails.
    """
    return {spec.due.name: (spec.due, spec.refused) for spec in STAGES if spec.due and spec.refused}
