"""What was hidden of a job's words and recording, for those who may read it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field

from schemas import blob_names
from web.parameters import Flag
from web.problems import ApiProblem

if TYPE_CHECKING:
    from schemas.jobs.rows import Transcript
    from sinks.ports.blobs import Store
    from web.auth.caller import Caller

#: The error of such a request by anybody else.
NEEDS_SCOPE: Final = "`unredacted` needs an API key with the scope `unredacted`"

#: A parameter of routes that show what may be redacted.
Unredacted = Annotated[
    Flag, Field(description="true: with what is redacted for others; needs a key with the scope `unredacted`")
]


def check_unredacted(caller: Caller, *, asked: bool) -> None:
    """Raises ApiProblem if the caller asks for what is redacted for others, and may not read it."""
    if asked and not caller.may("unredacted"):
        raise ApiProblem("forbidden", NEEDS_SCOPE)


def unredacted(transcript: Transcript, store: Store) -> Transcript:
    """The run's own transcript, with its words where what is redacted for others is kept."""
    of_run = transcript.tenant_id, transcript.job_id, transcript.run
    uri = store.uri(blob_names.raw_transcript(*of_run, restricted=True))
    return replace(transcript, version=1, raw_transcript_uri=uri)
