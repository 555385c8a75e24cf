"""Summaries by a text model. Its text is not trusted: what is not in the transcript where it says so is dropped.

A long call is read in parts, and the model then says which items of the parts belong in the summary of the whole: by
their ids, so that no item loses its citation or gets a text that nobody has checked.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final, Literal, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from agents.llm.protocols import TextPrompt
from agents.llm.texts.prompts import Template, prompt
from agents.llm.texts.questions import Asks
from agents.text.chunks.tokens import tokens
from agents.text.summaries.citations import Quotable, says
from agents.text.summaries.utterances import Utterance, packed, parts, utterances
from schemas.jobs.rows import OfRun
from schemas.summaries import ActionItem, Coverage, Entity, EntityKind, Participant, Sentiment, Statement, Summary
from schemas.texts import readable
from schemas.transcript_words import TranscriptWord

#: Versions of the prompts; changed texts, and changed names and descriptions below, need new ones.
SUMMARY, MERGE = "v1", "v1"

#: Parts of one call that are read at once.
AT_ONCE: Final = 4

#: Items of a list of one answer, and characters of a text, at most.
MOST_ITEMS, TEXT_CHARS = 50, 500

Q = TypeVar("Q")
R = TypeVar("R")

Text = Annotated[str, BeforeValidator(lambda value: readable(value, TEXT_CHARS) if isinstance(value, str) else value)]


# The docstrings, names and descriptions of these models are part of the schema that the model gets.


class _Form(BaseModel):
    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})


class _Cited(_Form):
    segment: str = Field(description="the id of the utterance, as s7")
    quote: str = Field(description="consecutive words of its text")


class _Statement(_Cited):
    text: Text


class _Action(_Cited):
    text: Text
    who: Text | None
    when: Text | None


class _Participant(_Cited):
    name: Text
    label: str | None


class _Entity(_Cited):
    kind: EntityKind
    text: Text


class CallReport(_Form):
    """A report on a call."""

    topic: Text
    sentiment: Sentiment
    key_points: list[_Statement]
    action_items: list[_Action]
    decisions: list[_Statement]
    open_questions: list[_Statement]
    participants: list[_Participant]
    entities: list[_Entity]


class MergedReport(_Form):
    """Which items belong in the report on the whole call."""

    topic: Text
    sentiment: Sentiment
    keep: list[str]


#: The lists that a merge chooses from.
_Listed = Literal["key_points", "action_items", "decisions", "open_questions"]
_LISTED: Final[tuple[_Listed, ...]] = ("key_points", "action_items", "decisions", "open_questions")


@dataclass(frozen=True, slots=True)
class _Report:
    """A report on some of the call, whose citations hold."""

    topic: str
    sentiment: Sentiment
    lists: dict[str, list[Any]]
    dropped: int = 0
    tokens: int = 0

    @property
    def items(self) -> list[tuple[_Listed, Any]]:
        """What a merge chooses from, in order."""
        return [(name, item) for name in _LISTED for item in self.lists[name]]


@dataclass(frozen=True, slots=True)
class Summarized:
    """A summary, and the tokens that it cost."""

    summary: Summary
    tokens: int


@dataclass(frozen=True)
class Summarizer:
    """Makes summaries of transcripts."""

    questions: Asks
    #: Tokens of a part, about.
    part_tokens: int
    #: Tokens of an answer.
    answer_tokens: int = 8192

    async def summary(
        self, job: OfRun, words: Sequence[TranscriptWord], language: str | None, template: Template, version: int
    ) -> Summarized:
        """The summary of a transcript with words, of this version. Raises as `Asks.ask` does."""
        spoken, contents = await asyncio.to_thread(contents_of, words, language, self.part_tokens)
        transcript = Quotable(spoken)
        reports = await all_of(contents, lambda content: self._read(job, content, transcript, template))
        while len(reports) > 1:
            groups = packed(reports, self.part_tokens, _size, least=2)
            reports = await all_of(list(groups), lambda group: self._merged(job, group))
        [report] = reports
        summary = Summary(
            kind="summary",
            template=template.name,
            model=self.questions.model,
            transcript_version=version,
            topic=report.topic,
            sentiment=report.sentiment,
            **{name: tuple(items) for name, items in report.lists.items()},
            dropped=report.dropped,
            coverage=Coverage(words=len(words), words_read=sum(len(s.words) for s in spoken), parts=len(contents)),
            notes=tuple(_notes(report, len(contents))),
        )
        return Summarized(summary, report.tokens)

    async def _read(self, job: OfRun, content: str, transcript: Quotable, template: Template) -> _Report:
        question = TextPrompt(template.instructions, content, CallReport, max_tokens=self.answer_tokens)
        asked = await self.questions.ask(job, question)
        report = await asyncio.to_thread(_checked, asked.value, transcript)
        return replace(report, tokens=asked.tokens)

    async def _merged(self, job: OfRun, reports: Sequence[_Report]) -> _Report:
        """One report of several."""
        if len(reports) == 1:
            return reports[0]
        items = [item for report in reports for item in report.items]
        question = TextPrompt(
            prompt("merge", MERGE), _parts_as_json(reports), MergedReport, max_tokens=self.answer_tokens
        )
        asked = await self.questions.ask(job, question)
        named = set(asked.value.keep)
        kept = [item for number, item in enumerate(items, 1) if f"i{number}" in named] or items
        lists: dict[str, list[Any]] = {name: [item for of, item in kept if of == name] for name in _LISTED}
        for name, key_of in (("participants", _name_of), ("entities", _text_of)):
            every = [item for report in reports for item in report.lists[name]]
            lists[name] = list({key_of(item): item for item in reversed(every)}.values())[::-1]
        return _Report(
            asked.value.topic,
            asked.value.sentiment,
            lists,
            sum(report.dropped for report in reports),
            asked.tokens + sum(report.tokens for report in reports),
        )


async def all_of(questions: Sequence[Q], ask: Callable[[Q], Awaitable[R]]) -> list[R]:
    """The answers to all questions, in their order, some asked at once. The first failure is raised when the calls in
    flight have ended, since they are paid for.
    """
    limit = asyncio.Semaphore(AT_ONCE)

    async def asked(question: Q) -> R:
        async with limit:
            return await ask(question)

    answers = await asyncio.gather(*map(asked, questions), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return cast("list[R]", answers)


def contents_of(
    words: Sequence[TranscriptWord], language: str | None, part_tokens: int
) -> tuple[list[Utterance], list[str]]:
    """The utterances of a call, and what a model reads of it, in parts. JSON, whose quoting keeps every word inside its
    string.
    """
    spoken = utterances(words)
    pieces = parts(spoken, part_tokens)
    common = {"language": language or "unknown"}
    contents = [
        common | {"part": f"{number} of {len(pieces)}", "utterances": [one.as_json for one in piece]}
        for number, piece in enumerate(pieces, 1)
    ]
    return spoken, [json.dumps(content, ensure_ascii=False) for content in contents]


def _parts_as_json(reports: Sequence[_Report]) -> str:
    numbers = itertools.count(1)
    pieces = [
        {
            "topic": report.topic,
            "sentiment": report.sentiment,
            "items": [{"id": f"i{next(numbers)}", "list": of, "text": item.text} for of, item in report.items],
        }
        for report in reports
    ]
    return json.dumps({"parts": pieces}, ensure_ascii=False)


def _size(report: _Report) -> int:
    return tokens(_parts_as_json([report]))


def _name_of(participant: Participant) -> str:
    return participant.name.casefold()


def _text_of(entity: Entity) -> tuple[str, str]:
    return entity.kind, entity.text.casefold()


@dataclass
class _Check:
    """Keeps items whose citation holds, and counts the others."""

    transcript: Quotable
    dropped: int = 0
    lists: dict[str, list[Any]] = field(default_factory=dict)

    def keep(self, name: str, kind: type[Any], items: Sequence[Any], said: str | None = None) -> None:
        """Keep these items as `kind`. The value of the field `said` must be in the quotation."""
        kept = self.lists.setdefault(name, [])
        for item in items[:MOST_ITEMS]:
            cited = self.transcript.cited(item.segment, item.quote, is_statement=said is None)
            if cited is None or (said is not None and not says(cited, getattr(item, said))):
                self.dropped += 1
            else:
                kept.append(kind(**item.model_dump(exclude={"segment", "quote"}), **cited))
        self.dropped += len(items[MOST_ITEMS:])


def _checked(report: CallReport, transcript: Quotable) -> _Report:
    check = _Check(transcript)
    check.keep("key_points", Statement, report.key_points)
    check.keep("action_items", ActionItem, report.action_items)
    check.keep("decisions", Statement, report.decisions)
    check.keep("open_questions", Statement, report.open_questions)
    check.keep("participants", Participant, report.participants, said="name")
    check.keep("entities", Entity, report.entities, said="text")
    labels = {utterance.speaker for utterance in transcript.utterances}
    check.lists["participants"] = [
        one if one.label in labels else one.model_copy(update={"label": None}) for one in check.lists["participants"]
    ]
    return _Report(report.topic, report.sentiment, check.lists, check.dropped)


def _notes(report: _Report, read: int) -> Iterator[str]:
    if read > 1:
        yield f"The call was read in {read} parts, all of it, and their items were chosen from."
    if report.dropped:
        yield f"Items left out, because the transcript does not say what they cite, or too many: {report.dropped}."
    disputed = sum(item.disputed for items in report.lists.values() for item in items)
    if disputed:
        yield f"Items that rest on words on which the recognizers did not agree: {disputed}."
