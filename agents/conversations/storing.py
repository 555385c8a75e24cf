"""Stores what was said in conversations: as a text for people, and as a hypothesis for the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from agents.conversations import transcript
from agents.conversations.answers import Conversation
from agents.runtime.failpoints import passing
from schemas import blob_names
from schemas.events.conversation import AGENT
from schemas.jobs.rows import Job
from schemas.words import Hypothesis, adapter
from sinks.ports.blobs import Blob, Store

_JSON, _TEXT = "application/json", "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Said:
    """What was said, as it is stored."""

    hypothesis: Hypothesis
    uri: str
    #: None where personal data are to be hidden: the text is then made of what is left, when that is decided.
    text: Blob | None


@dataclass(frozen=True)
class Texts:
    """What was said in the conversations of a store. Where personal data are to be hidden, it is stored below
    `restricted/` only.
    """

    store: Store

    async def put(self, job: Job, conversation_id: str, conversation: Conversation) -> Said:
        """Store a conversation's words. Raises Unavailable."""
        text = None if job.is_redacted else await self._put_text(job, conversation_id, transcript.text(conversation))
        hypothesis = transcript.hypothesis(conversation)
        content = adapter(Hypothesis).dump_json(hypothesis)
        blob = await self.store.put(_hypothesis_name(job, job.run), content, _JSON)
        passing("fetch.text")
        return Said(hypothesis, blob.uri, text)

    async def earlier(self, job: Job, conversation_id: str, first_run: int) -> Said | None:
        """What an earlier attempt has stored, be it of an earlier run from `first_run` on; None if that is not all."""
        name = blob_names.conversation_text(job.tenant_id, conversation_id)
        text = None if job.is_redacted else await self.store.stat(self.store.uri(name))
        if text is None and not job.is_redacted:
            return None
        for run in range(job.run, first_run - 1, -1):
            uri = self.store.uri(_hypothesis_name(job, run))
            if await self.store.stat(uri) is not None:
                return Said(cast("Hypothesis", adapter(Hypothesis).validate_json(await self.store.get(uri))), uri, text)
        return None

    async def put_redacted(
        self, job: Job, conversation_id: str, turns: Sequence[tuple[str | None, str]] | None
    ) -> Blob | None:
        """Store the text of what is left of turns; without them, it is the one that an earlier run has stored."""
        if turns is None:
            name = blob_names.conversation_text(job.tenant_id, conversation_id)
            return await self.store.stat(self.store.uri(name))
        return await self._put_text(job, conversation_id, transcript.text_of(turns))

    async def delete_open(self, job: Job, conversation_id: str, hypothesis_uri: str) -> None:
        """Delete what a run has stored before personal data were to be hidden. Repeating it changes nothing."""
        for name in (blob_names.conversation_text, blob_names.conversation_audio):
            await self.store.delete(self.store.uri(name(job.tenant_id, conversation_id)))
        await self.store.delete(hypothesis_uri)

    async def _put_text(self, job: Job, conversation_id: str, text: str) -> Blob:
        name = blob_names.conversation_text(job.tenant_id, conversation_id)
        return await self.store.put(name, text.encode(), _TEXT)


def _hypothesis_name(job: Job, run: int) -> str:
    return blob_names.hypothesis(job.tenant_id, job.job_id, run, AGENT, restricted=job.is_redacted)
