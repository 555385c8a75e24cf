"""What a report over many calls says: how many they are, how they go, what they are about, and what is to be done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final

from agents.reports.content import Fact, Item, Report, Section
from schemas.accounts.schedules import Schedule
from schemas.events.job import JobStatus
from schemas.printable import printable
from schemas.rendering.markdown import clock
from schemas.summaries import Sentiment, SummaryItem

#: Calls, and items of a kind, that a report has room for.
CALLS, ITEMS = 200, 200

#: Names that are in most of the calls.
NAMES: Final = 30

_CHARS: Final = 300


@dataclass(frozen=True, slots=True)
class Call:
    """A call that the schedule's filter has found."""

    job: JobStatus
    duration_ms: int | None = None
    sentiment: Sentiment | None = None
    #: Of the newest ones only; None for a call without a summary, too.
    topic: str | None = None


@dataclass(frozen=True, slots=True)
class Calls:
    """What was found: the newest calls first, and items of their summaries."""

    calls: Sequence[Call]
    actions: Sequence[SummaryItem]
    entities: Sequence[SummaryItem]
    #: Whether there are more than were looked at.
    is_cut: bool = False


def overview(schedule: Schedule, found: Calls, zone: tzinfo, link: Callable[[str], str | None]) -> Report:
    """The report of a schedule's tick. `link` leads to a job, by its id, if people can reach it."""
    days = {call.job.job_id: call.job.created_at.astimezone(zone).strftime("%d %b") for call in found.calls}
    return Report(
        title=printable(schedule.name, limit=200),
        language=None,
        facts=tuple(_facts(schedule, found, zone)),
        speakers=(),
        about=(_sentence(found),),
        sections=tuple(section for section in _sections(found, days, link) if section.items),
        turns=(),
        quality=(),
        notes=tuple(_notes(found)),
        has_transcript=False,
    )


def _sentence(found: Calls) -> str:
    if not found.calls:
        return "No calls were found."
    summarised = sum(call.sentiment is not None for call in found.calls)
    return f"{len(found.calls):,} calls, of which {summarised:,} have a summary."


def _facts(schedule: Schedule, found: Calls, zone: tzinfo) -> Iterator[Fact]:
    times = [call.job.created_at.astimezone(zone) for call in found.calls]
    yield Fact(name="Calls", value=f"{len(found.calls):,}{' or more' if found.is_cut else ''}")
    if times:
        yield Fact(name="Uploaded", value=f"{min(times):%d %b %Y %H:%M} to {max(times):%d %b %Y %H:%M}")
    yield Fact(name="Until", value=f"{schedule.due_at.astimezone(zone):%d %b %Y %H:%M} ({schedule.timezone})")
    yield Fact(name="Length", value=clock(sum(call.duration_ms or 0 for call in found.calls)))
    counts = Counter(call.sentiment for call in found.calls if call.sentiment is not None)
    if counts:
        yield Fact(name="Sentiment", value=", ".join(f"{name} {count:,}" for name, count in _ordered(counts)))
    yield Fact(name="Action items", value=f"{len(found.actions):,}")


def _ordered(counts: Counter[Sentiment]) -> list[tuple[Sentiment, int]]:
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))


def _sections(found: Calls, days: dict[str, str], link: Callable[[str], str | None]) -> Iterator[Section]:
    def item(job_id: str, text: str, *, disputed: bool = False) -> Item:
        text = printable(text, limit=_CHARS)
        return Item(time=days.get(job_id, ""), text=text, disputed=disputed, link=link(job_id))

    topics = [
        item(call.job.job_id, f"{call.topic or _name(call.job)}{f' ({call.sentiment})' if call.sentiment else ''}")
        for call in found.calls[:CALLS]
    ]
    actions = [
        item(one.job_id, f"{f'{one.who}: ' if one.who else ''}{one.text}{f' ({one.due})' if one.due else ''}",
             disputed=one.disputed)
        for one in found.actions[:ITEMS]
    ]  # fmt: skip
    yield Section(heading="Action items", items=tuple(actions))
    yield Section(heading="Named in most calls", items=tuple(_named(found.entities)))
    yield Section(heading="Calls", items=tuple(topics))


def _named(entities: Sequence[SummaryItem]) -> Iterator[Item]:
    spelled: dict[tuple[str | None, str], str] = {}
    calls: dict[tuple[str | None, str], set[str]] = {}
    for one in entities:
        spelled.setdefault((one.label, one.lookup), one.text)
        calls.setdefault((one.label, one.lookup), set()).add(one.job_id)
    for key in sorted(calls, key=lambda key: (-len(calls[key]), key[1]))[:NAMES]:
        yield Item(time=f"{len(calls[key]):,}", text=printable(_kind(spelled[key], key[0]), limit=_CHARS))


def _kind(text: str, kind: str | None) -> str:
    return f"{text} ({kind})" if kind else text


def _name(job: JobStatus) -> str:
    return job.reference or job.filename


def _notes(found: Calls) -> Iterator[str]:
    if found.is_cut:
        yield f"More calls were found: this report is on the newest {len(found.calls):,}."
    if len(found.calls) > CALLS:
        yield f"Of {len(found.calls):,} calls, the newest {CALLS} are listed; the counts are of all."
    if len(found.actions) > ITEMS:
        yield f"Of {len(found.actions):,} action items, {ITEMS} are listed."
