"""How a conversation, its job and its processing are named: each name follows from the others, and no table holds them.

`account_id` is the tenant; `processing_id` is the job's id in another spelling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Protocol
from uuid import UUID

from pydantic import AfterValidator, Field

from schemas import ids

#: The name in `Job.steps` of the stage that asks ElevenLabs: the first of a conversation's runs.
FETCH: Final = "fetch"

#: The scheme of a conversation's `audio_uri` and reference.
SCHEME: Final = "elevenlabs:"

#: Length of a conversation's id. ElevenLabs' own have some 30 characters and do not promise it.
MAX_CHARS: Final = 128

_CONVERSATION: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{MAX_CHARS - 1}}}")
_PROCESSING: Final = re.compile("proc_([0-9a-f]{32})")


def _conversation(id: str) -> str:
    if not _CONVERSATION.fullmatch(id):
        raise ValueError(f"use 1 to {MAX_CHARS} letters, digits, _ and -, as ElevenLabs names a conversation")
    return id


#: ElevenLabs' id of a conversation. It is a part of blobs' names and of URLs.
ConversationId = Annotated[
    str,
    Field(max_length=MAX_CHARS),
    AfterValidator(_conversation),
    Field(json_schema_extra={"pattern": f"^{_CONVERSATION.pattern}$"}),
]


def _processing(id: str) -> str:
    if not _PROCESSING.fullmatch(id):
        raise ValueError("use the processing_id of an answer: proc_ and 32 hexadecimal digits")
    return id


#: The id under which the processing of a conversation is asked for.
ProcessingId = Annotated[
    str,
    Field(max_length=37),
    AfterValidator(_processing),
    Field(json_schema_extra={"pattern": f"^{_PROCESSING.pattern}$"}),
]


class HasAudioUri(Protocol):
    """A job's row."""

    @property
    def audio_uri(self) -> str: ...


class HasOptions(Protocol):
    """A job's row."""

    @property
    def options(self) -> Mapping[str, Any]: ...


def reference(conversation_id: str) -> str:
    """The reference, and the `audio_uri`, of the conversation's job."""
    return SCHEME + conversation_id


def job_id(account_id: str, conversation_id: str) -> str:
    """The id of the conversation's job. A repeat has the same, so that it finds the job."""
    return ids.job_of_reference(account_id, reference(conversation_id))


def filename(conversation_id: str) -> str:
    """The filename of the conversation's job."""
    return f"{conversation_id}.mp3"


def conversation_of(job: HasAudioUri) -> str | None:
    """The conversation that this job is; None if it is an upload. The only test of which of the two a job is."""
    return job.audio_uri.removeprefix(SCHEME) if job.audio_uri.startswith(SCHEME) else None


#: The name in `Job.options` of when the call began. No other column of a row that exists is free for it: `metadata` is
#: written once.
STARTED_AT: Final = "started_at"


def started_at(job: HasOptions) -> datetime | None:
    """When the conversation began; None where ElevenLabs does not tell, or has not been asked yet."""
    text = job.options.get(STARTED_AT)
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def processing_id(job_id: str) -> str:
    """The processing id of the job with this UUID."""
    return f"proc_{UUID(job_id).hex}"


def job_of(processing_id: str) -> str | None:
    """The id of the job with this processing id; None if it is none."""
    match = _PROCESSING.fullmatch(processing_id)
    return str(UUID(match[1])) if match else None
