"""URLs of a conversation's files: signed ones of the object storage, whose expiry is recorded, else ones of ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol

from pydantic import Field

from schemas.conversations.names import processing_id
from schemas.conversations.rows import IssuedUrl
from schemas.errors import InvalidInput
from schemas.events.base import Data
from schemas.jobs.rows import File, Job, newest_file
from sinks.ports.blobs import Store
from sinks.ports.clock import Clock
from sinks.ports.conversations.issued_urls import IssuedUrls
from sinks.ports.tenants import PerTenant

#: The path of conversations.
PATH: Final = "/api/v1/postprocess"

#: Seconds for which a signed URL is valid, and that must be left of one that is shown again.
VALID_S, LEFT_S = 86_400, 3600

#: What there is of a conversation, by the name that it has here, with the kind of its row in `files`.
FileName = Literal["transcript", "audio", "report"]
KINDS: Final[Mapping[FileName, str]] = {"transcript": "conversation", "audio": "original", "report": "report"}


class FileView(Data):
    """A file of a conversation."""

    url: str = Field(description="where it is; signed, where `expires_at` is given, else it needs an API key")
    expires_at: datetime | None = Field(description="until when; asked for again, a URL that is old is replaced")
    size_bytes: int
    content_type: str
    checksum: str = Field(description="SHA-256, in hexadecimal digits")


class ConversationFiles(Data):
    """What is stored of a conversation until now."""

    transcript: FileView | None = Field(None, description="what was said, a line for each turn: `AI: ...`, `User: ...`")
    audio: FileView | None = Field(None, description="the recording; null if it has none, or one that is not redacted")
    report: FileView | None = None


class UrlDatabase(Clock, PerTenant[IssuedUrls], Protocol):
    """Where issued URLs are recorded."""


def files_of(job: Job, files: Iterable[File]) -> dict[FileName, File]:
    """Those of these files that are the account's, by name: of the newest run that has each. The recording of one whose
    personal data are hidden is for keys with the scope `unredacted`, at the job's own path.
    """
    known, found = list(files), dict[FileName, File]()
    for name, kind in KINDS.items():
        if name == "audio" and job.is_redacted:
            continue
        runs = sorted({file.run for file in known}, reverse=True)
        of_runs = (newest_file(known, kind, run, job.transcript_version) for run in runs)
        file = next((one for one in of_runs if one is not None), None)
        if file is not None:
            found[name] = file
    return found


@dataclass(frozen=True)
class FileUrls:
    """Issues URLs."""

    store: Store
    database: UrlDatabase
    #: Our own URL for people; without it, URLs of ours are paths.
    public_url: str | None = None

    async def of(self, job: Job, files: Mapping[FileName, File], *, renew: bool = False) -> ConversationFiles:
        """The files with their URLs. A URL that was issued is shown again while it is valid for some time, unless it is
        to be renewed; others are issued, and recorded before they are shown.

        Raises:
            Unavailable: the database or the store cannot be reached.
        """
        if not files:
            return ConversationFiles()
        database, now = self.database.acting_as(job.tenant_id), await self.database.now()
        kept = {} if renew else {one.uri: one for one in await database.issued_urls(job.key) if _is_fresh(one, now)}
        missing = [file for file in files.values() if file.uri not in kept]
        issued = [url for file in missing if (url := await self._issue(job, file, now)) is not None]
        if issued:
            await database.keep_issued_urls(issued)
        urls = kept | {one.uri: one for one in issued}
        return ConversationFiles(**{name: self._view(job, name, file, urls) for name, file in files.items()})

    async def _issue(self, job: Job, file: File, now: datetime) -> IssuedUrl | None:
        try:
            url = await self.store.presigned_url(file.uri, VALID_S)
        except InvalidInput:  # of a store that this installation had before: the URL of ours says so
            return None
        if url is None:
            return None
        expires_at = now + timedelta(seconds=VALID_S)
        return IssuedUrl(tenant_id=job.tenant_id, job_id=job.job_id, uri=file.uri, url=url, expires_at=expires_at)

    def _view(self, job: Job, name: FileName, file: File, urls: Mapping[str, IssuedUrl]) -> FileView:
        issued = urls.get(file.uri)
        own = f"{(self.public_url or '').rstrip('/')}{PATH}/{processing_id(job.job_id)}/files/{name}"
        return FileView(
            url=issued.url if issued else own,
            expires_at=issued.expires_at if issued else None,
            size_bytes=file.size_bytes,
            content_type=file.content_type,
            checksum=file.sha256,
        )


def _is_fresh(one: IssuedUrl, now: datetime) -> bool:
    return one.expires_at > now + timedelta(seconds=LEFT_S)
