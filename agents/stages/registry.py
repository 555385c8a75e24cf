"""The only list of stages, and what follows from it: roles, topics, and which stage reads what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from agents.runtime.kafka.client import Kafka
from agents.runtime.kafka.topic_layout import TopicLayout, layout
from agents.stages import document, intake, persist, reconcile, track, transcribe
from agents.stages.spec import StageSpec
from schemas.envelope import Envelope
from schemas.errors import SettingsError
from schemas.jobs.outcome import Failure, Outcome
from schemas.topics import FAILED, STATUS, Topic

#: In the order in which a recording goes through them.
STAGES: tuple[StageSpec, ...] = (
    intake.SPEC,
    transcribe.SPEC,
    reconcile.SPEC,
    persist.SPEC,
    document.SPEC,
    track.SPEC,
)

#: Published by whichever stage ends a run, or changes a job.
BY_ALL: tuple[Topic, ...] = (FAILED, STATUS)

#: The role that publishes the outbox; it is no stage.
RELAY = "relay"

#: The role that stands for every enrichment, so that a deployment need not list them.
ENRICHMENTS = "enrichments"


def stages(recognizers: Iterable[str], kinds: Sequence[str] | None = None) -> tuple[StageSpec, ...]:
    """The stages of a fleet with these recognizers and kinds of enrichment (None: all that there are).

    Raises:
        SettingsError: there is no such kind of enrichment.
    """
    if unknown := [kind for kind in kinds or () if kind not in enrichments()]:
        there = ", ".join(enrichments())
        raise SettingsError(f"CONCORD_ENRICHMENTS: there is no {', '.join(unknown)}; there are {there}, or none")
    wanted = enrichments() if kinds is None else kinds
    used = [spec for spec in STAGES if spec.enrichment is None or spec.enrichment in wanted]
    names = tuple(recognizers)
    return tuple(one for spec in used for one in _instances(spec, names))


def _instances(spec: StageSpec, recognizers: Iterable[str]) -> list[StageSpec]:
    return [spec.for_recognizer(name) for name in recognizers] if spec.per_recognizer else [spec]


def enrichments() -> tuple[str, ...]:
    """Every kind of enrichment that there is."""
    return tuple(spec.enrichment for spec in STAGES if spec.enrichment)


def roles(recognizers: Iterable[str], kinds: Sequence[str] | None = None) -> tuple[str, ...]:
    """Everything that `concord worker` can be; `concord up` is all of it."""
    return (*(spec.name for spec in stages(recognizers, kinds)), RELAY)


def all_topics(recognizers: Iterable[str]) -> tuple[Topic, ...]:
    """Every topic of a fleet with these recognizers, without the dead letter topics."""
    every = [topic for spec in stages(recognizers) for topic in (*spec.reads, *spec.publishes)]
    return tuple({topic.name: topic for topic in (*every, *BY_ALL)}.values())


def read_by(recognizers: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The stages that read a topic, by its name; topics that no stage reads are left out."""
    readers: dict[str, tuple[str, ...]] = {}
    for spec in stages(recognizers):
        for topic in spec.reads:
            readers[topic.name] = (*readers.get(topic.name, ()), spec.name)
    return readers


def layouts(kafka: Kafka, recognizers: Iterable[str]) -> tuple[TopicLayout, ...]:
    """Every topic of a fleet with these recognizers as Kafka is to keep it, with dead letters and changelogs."""
    names = tuple(recognizers)
    return layout(kafka, all_topics(names), [spec.table for spec in stages(names) if spec.table])


def refusals() -> dict[str, tuple[Topic, Callable[[Envelope, Failure], Outcome | None]]]:
    """By name of a topic: what becomes of an event for it that Kafka refuses for good, where that does not simply end
    the run.
    """
    return {spec.due.name: (spec.due, spec.refused) for spec in STAGES if spec.due and spec.refused}
