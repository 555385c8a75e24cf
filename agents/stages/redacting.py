"""What stages do for a job whose personal data are hidden: in its words, before anybody has them, and in its recording;
and how the job forgets what was not redacted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from agents.conversations.storing import Texts
from agents.conversations.transcript import turns_of
from agents.media.stored_audio import FLAC, DecodedAudio
from agents.media.transcode import Transcoder
from agents.redaction.finding import joined
from agents.redaction.redact import Redacted, muted_ms, redacted, redacted_hypothesis, turns_left
from agents.stages.uploads.jobs import earlier_requests
from schemas import blob_names
from schemas.accounts.redaction import EVERYTHING, RedactionPolicy
from schemas.conversations.names import conversation_of
from schemas.errors import InvalidInput, NotFound
from schemas.events.conversation import AGENT
from schemas.jobs.rows import File, Job
from schemas.words import Hypothesis, Reconciliation, adapter
from sinks.ports.accounts.settings import EffectiveSettings
from sinks.ports.blobs import Blob, Store, file_of
from sinks.ports.providers.requests import Requests

_JSON: Final = "application/json"

#: The kind of the file that readers hear.
AUDIO: Final = "redacted_audio"

#: Decides again, on words of which the personal ones are hidden.
Decide = Callable[[Reconciliation], Awaitable[Reconciliation]]


@dataclass(frozen=True)
class Redaction:
    """Hides personal data in transcripts and recordings."""

    store: Store
    transcoder: Transcoder
    #: What holds for each tenant; None: everything is hidden.
    accounts: EffectiveSettings | None = None

    async def redacted(
        self, job: Job, decided: Reconciliation, heard: Sequence[Hypothesis], decide: Decide
    ) -> tuple[Reconciliation, Blob | None]:
        """The transcript for readers, and what is stored for readers: the recording or, of a conversation, its text.
        Nothing is made silent in a conversation's recording, because ElevenLabs does not tell when a word was said.
        What is not redacted is stored beside them, under a name of its own, unless the job forgets it. `heard` has
        what was decided on. `decide` sees no personal data, and what it decides is searched once more.

        Raises:
            NotFound: The recording is not stored any more.
            RefusedMedia: It cannot be decoded.
            Transient, Unavailable: It can be tried again.
        """
        policy = await self._policy(job.tenant_id)
        first = await asyncio.to_thread(redacted, decided, policy)
        decided_again = await decide(first.reconciliation)
        second = await asyncio.to_thread(redacted, decided_again, policy)
        if not forgets(job):
            original = replace(first, reconciliation=decided_again).unredacted(decided)
            await self._keep(job, original)
        both = Redacted(second.reconciliation, tuple(joined([*first.spans, *second.spans])))
        if (conversation_id := conversation_of(job)) is not None:
            blob = await self._text(job, conversation_id, heard, decided, both.reconciliation)
            return replace(both.reconciliation, notes=(*both.reconciliation.notes, note(both), *_of_audio(job))), blob
        blob = await self._mute(job, await asyncio.to_thread(muted_ms, both, heard))
        return replace(both.reconciliation, notes=(*both.reconciliation.notes, note(both))), blob

    async def _text(
        self,
        job: Job,
        conversation_id: str,
        heard: Sequence[Hypothesis],
        before: Reconciliation,
        after: Reconciliation,
    ) -> Blob | None:
        """The conversation's text, as what is left of what the agent itself has understood."""
        agent = next((hypothesis for hypothesis in heard if hypothesis.provider == AGENT), None)
        counts = turns_of(agent.details) if agent is not None else ()
        if agent is None or (agent.words and not counts):
            turns = None  # an earlier run has forgotten it
        else:
            turns = await asyncio.to_thread(turns_left, agent, counts, before.decisions, after.decisions)
        return await Texts(self.store).put_redacted(job, conversation_id, turns)

    async def _policy(self, tenant: str) -> RedactionPolicy:
        settings = await self.accounts.settings_of(tenant) if self.accounts else None
        return (settings.redaction if settings else None) or EVERYTHING

    async def _keep(self, job: Job, original: Reconciliation) -> None:
        name = blob_names.raw_transcript(*job.key, job.run, restricted=True)
        content = await asyncio.to_thread(adapter(Reconciliation).dump_json, original)
        await self.store.put(name, content, _JSON)

    async def _mute(self, job: Job, muted: Sequence[tuple[int, int | None]]) -> Blob:
        """Store the recording with silence in these intervals. It has none of the original's tags."""
        if job.original_uri is None:
            raise NotFound("the recording is not kept, so that nothing can be muted in it")
        audio = DecodedAudio(self.store, job.original_uri, self.transcoder, tuple(muted))
        return await self.store.put(blob_names.redacted_audio(*job.key, job.run), audio.stream(), FLAC)


def note(redaction: Redacted) -> str:
    """A sentence for readers on what is hidden."""
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(redaction.counts.items()))
    english = (
        "" if redaction.reconciliation.language else " No recognizer has told the language; English was taken for it."
    )
    return f"Personal data are hidden: {counts or 'none were found'}.{english}"


def _of_audio(job: Job) -> tuple[str, ...]:
    """What readers are told of a conversation's recording."""
    if job.original_uri is None:
        return ()
    kept = "is deleted" if forgets(job) else "is kept for keys with the scope `unredacted`"
    return (f"The recording {kept}: when each word was said is not known, so that nothing can be made silent in it.",)


def forgets(job: Job) -> bool:
    """Whether what is not redacted is deleted before the run completes."""
    return job.is_redacted and job.options.get("redact") == "forget"


def changes(job: Job, blob: Blob | None, store: Store) -> tuple[tuple[File, ...], dict[str, Any]]:
    """The rows of what is stored for readers, and the changes of the job's row. Of a conversation it is the text, and
    one that forgets its recording has none any more.
    """
    if conversation_of(job) is None:
        return _audio_changes(job, blob, store) if blob is not None else ((), {})
    files = (file_of(job, "conversation", blob),) if blob is not None else ()
    return files, {"original_uri": None, "content_type": None} if forgets(job) else {}


def _audio_changes(job: Job, muted: Blob, store: Store) -> tuple[tuple[File, ...], dict[str, Any]]:
    """The rows of the recording that readers hear, and the changes of the job's row. A job that forgets the original
    has this one in its place, from which it can be run again.
    """
    files = (file_of(job, AUDIO, muted),)
    if not forgets(job) or job.original_uri is None:
        return files, {}
    fetched_by = blob_names.run_of(store.name(job.original_uri))
    original = replace(file_of(job, "original", muted), run=fetched_by)
    return (*files, original), {"original_uri": muted.uri, "content_type": muted.content_type}


async def clean_up(store: Store, requests: Requests, job: Job, reconciliation: Reconciliation) -> None:
    """Delete what may not stay of a job whose personal data are hidden: its recording where its producer has left it in
    our store and, if it forgets, all that is not redacted. Repeating it changes nothing.

    Hypotheses of recognizers are replaced by what the redacted transcript has of them, so that the job can be
    reconciled again.

    Raises:
        Unavailable: The database or the store is away.
    """
    await _delete_source(store, job)
    if not forgets(job):
        return
    kept = {job.original_uri}
    for request in (await earlier_requests(requests, job)).values():
        if request.hypothesis_uri is not None:
            kept.add(request.hypothesis_uri)
            await _redact_hypothesis(store, request.hypothesis_uri, reconciliation)
    async for uri in store.list(blob_names.job_folder(*job.key)):
        if blob_names.is_restricted(store.name(uri)) and uri not in kept:
            await store.delete(uri)


async def _redact_hypothesis(store: Store, uri: str, reconciliation: Reconciliation) -> None:
    try:
        hypothesis = cast("Hypothesis", adapter(Hypothesis).validate_json(await store.get(uri)))
    except NotFound:
        return
    hidden = redacted_hypothesis(hypothesis, reconciliation)
    await store.put(store.name(uri), adapter(Hypothesis).dump_json(hidden), _JSON)


async def _delete_source(store: Store, job: Job) -> None:
    """Delete the recording that a client has sent straight into our store, or that lies in the job's own folder: the
    job's original is a copy of it.
    """
    try:
        name = store.name(job.audio_uri)
    except InvalidInput:
        return
    folders = (blob_names.job_folder(*job.key), f"{job.tenant_id}/{blob_names.UPLOADS}/")
    if job.audio_uri != job.original_uri and not blob_names.is_restricted(name) and name.startswith(folders):
        await store.delete(job.audio_uri)
