"""Makes new versions of transcripts. An edit is all or nothing: its blob is stored under a name of its own before the
one transaction that mentions it, with the version, the queue of reviewers and the events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol
from uuid import UUID, uuid4

import orjson

from agents.runtime.failpoints import passing
from agents.text.corrections.changes import changed
from agents.text.corrections.draft import Edited
from agents.text.corrections.review import decided
from agents.text.corrections.whole import rewritten
from agents.text.speakers.labels import MERE
from schemas import blob_names, topics
from schemas.corrections.changes import (
    MAX_WORDS,
    OutOfDate,
    RefusedChange,
    RenameSpeaker,
    TranscriptPatch,
    WholeTranscript,
)
from schemas.corrections.rows import (
    FIRST,
    ReviewChoice,
    ReviewItem,
    TranscriptEdit,
    TranscriptVersion,
    dump_words,
    load_words,
)
from schemas.corrections.voices import RenamedSpeaker
from schemas.errors import NotFound
from schemas.events.transcript import TranscriptEdited
from schemas.jobs.outcome import Later, Outcome, Step
from schemas.jobs.rows import Transcript, file_kind, run_fields
from schemas.rendering.segments import segments, speakers
from schemas.texts import joined
from schemas.transcript_words import TranscriptWord, words_of
from schemas.words import Reading, Reconciliation, adapter
from sinks.ports.blobs import Blob, Store, file_of
from sinks.ports.corrections.versions import Versions
from sinks.ports.slots import Slots
from sinks.ports.steps import Steps
from sinks.ports.tenants import PerTenant
from sinks.ports.upkeep.blob_intents import BlobIntents

_JSON: Final = "application/json"

#: Transcripts that a process reads or edits at once, and those of one tenant. One of 15,000 words takes 60 MB while its
#: readings are parsed.
AT_ONCE, OF_TENANT = 4, 2


class Commits(Steps, BlobIntents, Protocol):
    """What an edit writes."""


@dataclass(frozen=True, slots=True)
class _Source:
    """The words of a version, and the readings of the run from which they come."""

    words: list[TranscriptWord]
    reconciliation: Reconciliation | None = None

    def readings(self, id: str) -> Sequence[Reading]:
        """The readings of the decision that a word's id names."""
        number = id.removeprefix("w")
        decisions = self.reconciliation.decisions if self.reconciliation else ()
        if not (number.isascii() and number.isdigit() and len(number) < 9 and int(number) < len(decisions)):
            return ()
        decision = decisions[int(number)]
        return (decision.chosen, *decision.others)


@dataclass(frozen=True)
class Editor:
    """Edits transcripts of completed runs."""

    versions: Versions
    store: Store
    database: PerTenant[Commits]
    slots: Slots

    async def words(self, transcript: Transcript, version: int | None = None) -> list[TranscriptWord]:
        """The words of a version of this run's transcript, by default of the one that `transcript` is.

        Raises:
            NotFound: there is no such version, or its words are not in the store any more.
        """
        async with self.slots.held(transcript.tenant_id):
            return (await self._source(transcript, version or transcript.version)).words

    async def earlier(self, transcript: Transcript, version: int) -> Transcript:
        """The transcript as it was in an earlier version. Raises `NotFound` as `words`."""
        words = await self.words(transcript, version)
        return await asyncio.to_thread(_with_words, transcript, words, version)

    async def patch(self, transcript: Transcript, patch: TranscriptPatch, author: str) -> TranscriptVersion:
        """Change single words and speakers of the version that `transcript` is.

        Raises:
            RefusedChange: a change does not fit the transcript.
            OutOfDate: it has another version by now.
            NotFound: its words are not in the store any more.
        """
        needs_readings = any(change.op == "choose" for change in patch.changes)

        def edit(source: _Source, version: int) -> Edited:
            return changed(source.words, patch.changes, source.readings, version)

        renamed = tuple(
            RenamedSpeaker(change.speaker, change.to, is_name=not MERE.fullmatch(change.to))
            for change in patch.changes
            if isinstance(change, RenameSpeaker)
        )
        return await self._edit(transcript, edit, author, patch.reason, needs_readings=needs_readings, renamed=renamed)

    async def rewrite(self, transcript: Transcript, whole: WholeTranscript, author: str) -> TranscriptVersion:
        """Replace the whole text of the version that `transcript` is. Raises `OutOfDate` and `NotFound` as `patch`."""

        def edit(source: _Source, version: int) -> Edited:
            return rewritten(source.words, whole, version)

        return await self._edit(transcript, edit, author, whole.reason)

    async def choose(
        self, transcript: Transcript, item: ReviewItem, choice: int | str, reviewer: str
    ) -> TranscriptVersion:
        """Have a disputed span read as a reviewer chose: a reading's index, or a text of their own. Raises `OutOfDate`
        and `NotFound` as `patch`.
        """

        def edit(source: _Source, version: int) -> Edited:
            return decided(source.words, item, choice, version)

        index, text = (None, choice) if isinstance(choice, str) else (choice, None)
        row = ReviewChoice(**run_fields(item), item=item.id, reviewer=reviewer, choice=index, text=text)
        return await self._edit(transcript, edit, reviewer, "chosen in the review queue", choice=row)

    async def _edit(
        self,
        transcript: Transcript,
        edit: Callable[[_Source, int], Edited],
        author: str,
        reason: str | None,
        *,
        needs_readings: bool = False,
        choice: ReviewChoice | None = None,
        renamed: tuple[RenamedSpeaker, ...] = (),
    ) -> TranscriptVersion:
        async with self.slots.held(transcript.tenant_id):
            source = await self._source(transcript, transcript.version, needs_readings=needs_readings)
            content = await self.store.get(transcript.agent_optimized_uri)
            edit_id, version = uuid4(), transcript.version + 1
            # In a thread: an hour's words take a tenth of a second.
            edited, blob, after = await asyncio.to_thread(_made, transcript, source, edit, content, version)
            stored = await self._put(transcript, edit_id, blob)
            row = TranscriptVersion(
                **run_fields(transcript),
                version=version,
                author=author,
                reason=reason,
                changed_words=edited.changed_words,
                word_count=len(edited.words),
                agent_optimized_uri=stored.uri,
                words=dump_words(edited.words),
            )
            after = replace(after, agent_optimized_uri=stored.uri)
            edit_rows = TranscriptEdit(
                version=row, transcript=after, decided=edited.decided, choice=choice, renamed=renamed
            )
            return await self._commit(edit_id, edit_rows, stored)

    async def _source(self, transcript: Transcript, version: int, *, needs_readings: bool = False) -> _Source:
        if version == FIRST or needs_readings:
            raw = await self.store.get(transcript.raw_transcript_uri)
            reconciliation = await asyncio.to_thread(adapter(Reconciliation).validate_json, raw)
            if version == FIRST:
                return _Source(words_of(reconciliation), reconciliation)
        else:
            reconciliation = None
        row = await self.versions.version(transcript.tenant_id, transcript.job_id, transcript.run, version)
        if row is None:
            raise NotFound(f"the transcript has no version {version}")
        return _Source(load_words(row.words), reconciliation)

    async def _put(self, transcript: Transcript, edit_id: UUID, content: bytes) -> Blob:
        """Store the blob of a version. It is noted before, so that it is swept if the edit comes to nothing."""
        key = (transcript.tenant_id, transcript.job_id)
        name = blob_names.edited(*key, transcript.run, edit_id)
        await self.database.acting_as(transcript.tenant_id).intend_blob(key, self.store.uri(name))
        passing("edit.intended")
        blob = await self.store.put(name, content, _JSON)
        passing("edit.stored")
        return blob

    async def _commit(self, edit_id: UUID, edit: TranscriptEdit, blob: Blob) -> TranscriptVersion:
        version = edit.version
        owner = run_fields(version)
        event = TranscriptEdited(
            **owner,
            version=version.version,
            author=version.author,
            reason=version.reason,
            changed_words=version.changed_words,
            word_count=version.word_count,
            agent_optimized_uri=blob.uri,
        )
        outcome = Outcome(
            tenant_id=version.tenant_id,
            job_id=version.job_id,
            edit=edit,
            files=(file_of(version, file_kind("agent_optimized", version.version), blob),),
            later=(Later(topics.EDITED.name, event),),
            audit="edited",
            author=version.author,
        )
        passing("edit.before-commit")
        [written] = await self.database.acting_as(version.tenant_id).commit([Step("edit", edit_id, outcome)])
        passing("edit.after-commit")
        if written is None or not written.applied or written.edit is None:
            raise OutOfDate("the transcript was edited meanwhile")
        return written.edit.version


def _made(
    transcript: Transcript, source: _Source, edit: Callable[[_Source, int], Edited], content: bytes, version: int
) -> tuple[Edited, bytes, Transcript]:
    """The edited words, `agent_optimized.json` with them, and the transcript's row."""
    edited = edit(source, version)
    if len(edited.words) > max(MAX_WORDS, len(source.words)):
        raise RefusedChange("", f"the transcript would have more than {MAX_WORDS} words")
    after = _with_words(transcript, edited.words, version)
    optimized = orjson.loads(content)
    optimized["transcript"] = {name: getattr(after, name) for name in ("text", "speakers", "segments")}
    optimized["metadata"] |= {"version": version, "confidence": after.confidence}
    return edited, orjson.dumps(optimized), after


def _with_words(transcript: Transcript, of_version: Sequence[TranscriptWord], version: int) -> Transcript:
    """The row with the words of a version."""
    words = [word.word for word in of_version]
    confidences = [word.confidence for word in words if word.confidence is not None]
    return replace(
        transcript,
        text=joined(word.text for word in words),
        words=len(words),
        speakers=speakers(words),
        segments=segments(words),
        confidence=sum(confidences) / len(confidences) if confidences else None,
        version=version,
    )
