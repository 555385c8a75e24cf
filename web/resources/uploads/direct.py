"""`/audio/uploads`: recordings that are too long for a request go straight into the store, by a URL for one of them.

The URL is the store's own where it makes such URLs (S3), else one of this service, with a token. So clients need one
way only: begin, `PUT` the recording, complete. In S3 a recording may also go in parts, each by a URL of its own, and a
very long one has to.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Final, Literal, Protocol
from urllib.parse import quote
from uuid import UUID

from aiohttp import web
from pydantic import ConfigDict, Field

from schemas import blob_names
from schemas.errors import Conflict, Contended, NotFound
from schemas.events.audio import AudioUploaded, Options
from schemas.events.base import Data, Language, Metadata, Moment
from schemas.ids import Name, Reference
from sinks.ports.api.direct_uploads import DirectUpload
from sinks.ports.tenants import PerTenant
from web.auth.access import PUBLIC, WRITE
from web.parameters import Parameters
from web.resources.jobs.links import link_to
from web.resources.uploads.receiving import TooLong, megabytes, pieces
from web.resources.uploads.upload_view import EXAMPLE, TenantOfUpload, UploadView, upload_of, uploaded
from web.route import AnyRoute, ApiRequest, RequestBody, ResponseSpec, Route, StreamedBody

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.ids import Key
    from schemas.jobs.rows import Job
    from sinks.ports.blobs import Store
    from web.connections.caller_limit import CallerLimit
    from web.ports import TakesUploads

#: Seconds for which a URL is valid, and for which a recording waits to be completed.
VALID_S: Final = 6 * 3600

#: Bytes that S3 takes in one request. Longer recordings go in parts.
ONE_PUT: Final = 5 << 30

#: Bytes of a part at least, and parts at most: each is a URL in the answer.
PART: Final = 64 << 20
PARTS: Final = 200

#: The answer about an upload that does not exist, has expired, or is another tenant's.
NO_UPLOAD: Final = "there is no such upload, or it has expired; begin a new one with POST /audio/uploads"

_ID: Final = "0b0f1f6e-0000-4000-8000-00000000000b"


class KeepsUploads(Protocol):
    """The database, for uploads of one tenant, or of all."""

    async def now(self) -> datetime:
        """The database's time."""

    async def job(self, tenant_id: str, job_id: str) -> Job | None:
        """A job's row."""

    async def hold_blob(self, key: Key, uri: str, seconds: float) -> None:
        """Note that a blob is about to be written, and an orphan after that time."""

    async def begin_upload(self, upload: DirectUpload) -> None:
        """Note an upload."""

    async def direct_upload(self, upload_id: UUID) -> DirectUpload | None:
        """The upload with this id."""


class UploadDatabase(KeepsUploads, PerTenant[KeepsUploads], Protocol):
    """The database."""


class NewUpload(Data):
    """A recording that is to be uploaded."""

    model_config = ConfigDict(extra="forbid")

    filename: Annotated[str, Field(min_length=1, max_length=1024)]
    size_bytes: Annotated[int, Field(ge=1, description="exactly; the URL takes no other length")]
    in_parts: bool = Field(
        False,
        description="answer URLs for parts, of which each can be sent again alone, where the storage takes parts (S3); "
        "recordings of more than 5 GiB go into S3 in no other way",
    )
    content_type: str | None = Field(None, max_length=255)
    reference: Reference | None = None
    job_id: Name | None = None
    language: Language = "auto"
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    not_before: Moment | None = Field(None, description="its job waits until then, for 90 days at most (RFC 3339)")
    options: Options = Options()
    metadata: Metadata = Field(default_factory=dict)


class Part(Data):
    """A part of the recording, in order."""

    number: int
    size_bytes: int = Field(description="exactly")
    url: str = Field(description="takes these bytes as the body of one request, without an API key")


class UploadTarget(Data):
    """Where the recording is to be sent."""

    upload_id: UUID
    job_id: str = Field(description="the id of the job that it becomes")
    method: Literal["PUT"] = "PUT"
    url: str | None = Field(
        description="takes the recording as the body of one request, without an API key; null: send `parts`"
    )
    parts: list[Part] = Field(default_factory=list, description="what to send instead, in any order")
    headers: dict[str, str] = Field(description="headers that the request must have")
    expires_at: datetime
    links: dict[str, str]


_TARGET: Final = {
    "upload_id": _ID,
    "job_id": EXAMPLE["job_id"],
    "method": "PUT",
    "url": f"https://bucket.s3.eu-central-1.amazonaws.com/acme/_uploads/{_ID}?X-Amz-Signature=...",
    "headers": {"Content-Length": "734003200"},
    "expires_at": "2026-05-01T18:00:00Z",
    "links": {"complete": f"/audio/uploads/{_ID}/complete"},
}
_NEW: Final = RequestBody(NewUpload, {"filename": "call.wav", "size_bytes": 734003200, "reference": "call 4711"})


class UploadSelector(TenantOfUpload):
    """An upload that has begun."""

    id: UUID


class UploadToken(Parameters):
    """An upload, and what permits to send its recording."""

    id: UUID
    token: str = Field(min_length=1, max_length=128)


@dataclass(frozen=True)
class DirectAudio:
    """Uploads straight into the store."""

    database: UploadDatabase
    uploads: TakesUploads
    store: Store
    at_once: CallerLimit
    #: Bytes that such a recording may have.
    limit: int
    #: Under which URL clients reach this service; None for the one that they ask.
    public_url: str | None = None

    def routes(self) -> Sequence[AnyRoute]:
        """Begin, send, complete."""
        return [
            Route(
                method="POST",
                path="/audio/uploads",
                operation_id="audio_uploads",
                summary="Begin to upload a long recording",
                handler=self.begin,
                parameters=TenantOfUpload,
                body=_NEW,
                responses={
                    201: ResponseSpec("send the recording there, then complete", UploadTarget, _TARGET),
                    409: ResponseSpec("there is a job with this id or reference already"),
                    413: ResponseSpec("the recording is longer than recordings may be here"),
                },
                access=WRITE,
                accepts_idempotency_key=True,
            ),
            Route(
                method="PUT",
                path="/audio/uploads/{id}/content",
                operation_id="audio_uploads_id_content",
                summary="Send the recording, by the URL that `POST /audio/uploads` has answered",
                handler=self.send,
                parameters=UploadToken,
                streamed_body=StreamedBody({"*/*": {"type": "string", "format": "binary"}}, self.limit),
                responses={
                    204: ResponseSpec("it is stored"),
                    400: ResponseSpec("this cannot be the URL of an upload"),
                    404: ResponseSpec(NO_UPLOAD),
                    409: ResponseSpec("the upload is completed"),
                    413: ResponseSpec("the body is longer than was said"),
                },
                access=PUBLIC,
                is_streamed=True,
            ),
            Route(
                method="POST",
                path="/audio/uploads/{id}/complete",
                operation_id="audio_uploads_id_complete",
                summary="Have an uploaded recording transcribed",
                handler=self.complete,
                parameters=UploadSelector,
                responses={
                    202: ResponseSpec("its job is on its way", UploadView, EXAMPLE),
                    200: ResponseSpec("its job was on its way already", UploadView, EXAMPLE),
                    409: ResponseSpec("the recording has not arrived, or not all of it"),
                },
                access=WRITE,
                accepts_idempotency_key=True,
            ),
        ]

    async def begin(self, request: ApiRequest[TenantOfUpload, NewUpload]) -> web.StreamResponse:
        """Note the upload, and answer where to send it."""
        tenant, size = request.parameters.of(request.caller), request.body.size_bytes
        if size > self.limit:
            detail = f"recordings of more than {megabytes(self.limit)} are not taken here"
            raise web.HTTPRequestEntityTooLarge(self.limit, size, text=detail)
        fields = request.body.model_dump(mode="json", exclude={"size_bytes", "in_parts"}, exclude_unset=True)
        upload = upload_of(tenant, fields, request.once.new_id)
        if (job := await self.uploads.known(upload)) is not None:
            link = link_to(*job.key, operator=request.caller.is_operator)
            raise Conflict(f"there is a job with this id or reference already: {link}")
        row, target = await self._target(request, upload, size)
        database = self.database.acting_as(tenant)
        await database.hold_blob((tenant, row.job_id), row.uri, VALID_S)
        await database.begin_upload(row)
        headers = {"Location": target.links["complete"].removesuffix("/complete")}
        return web.json_response(text=target.model_dump_json(), status=201, headers=headers)

    async def _target(
        self, request: ApiRequest[TenantOfUpload, NewUpload], upload: AudioUploaded, size: int
    ) -> tuple[DirectUpload, UploadTarget]:
        """The upload's row, and what its client needs to know."""
        id = request.once.new_id()
        uri = self.store.uri(blob_names.direct_upload(upload.tenant_id, str(id)))
        row = DirectUpload(
            tenant_id=upload.tenant_id,
            upload_id=id,
            job_id=str(upload.job_id),
            uri=uri,
            size_bytes=size,
            upload=upload.model_copy(update={"audio_uri": uri}).model_dump(mode="json"),
            expires_at=await self.database.now() + timedelta(seconds=VALID_S),
        )
        query = f"?tenant={quote(upload.tenant_id)}" if request.caller.is_operator else ""
        target = UploadTarget(
            upload_id=id,
            job_id=row.job_id,
            url=None,
            headers={},
            expires_at=row.expires_at,
            links={"complete": f"/audio/uploads/{id}/complete{query}"},
        )
        if (size > ONE_PUT or request.body.in_parts) and (in_parts := await self._in_parts(row, target)) is not None:
            return in_parts
        return await self._whole(row, target, request.http)

    async def _in_parts(self, row: DirectUpload, target: UploadTarget) -> tuple[DirectUpload, UploadTarget] | None:
        """The upload in parts; None where the store takes none."""
        sizes = part_sizes(row.size_bytes)
        begun = await self.store.begin_parts(row.uri, sizes, VALID_S)
        if begun is None:
            return None
        id, urls = begun
        parts = [
            Part(number=number, size_bytes=size, url=url)
            for number, (size, url) in enumerate(zip(sizes, urls, strict=True), 1)
        ]
        return replace(row, parts_id=id), target.model_copy(update={"parts": parts})

    async def _whole(
        self, row: DirectUpload, target: UploadTarget, http: web.Request
    ) -> tuple[DirectUpload, UploadTarget]:
        """The upload by one request."""
        headers: dict[str, str] = {}
        signed = await self.store.presigned_put(row.uri, row.size_bytes, VALID_S) if row.size_bytes <= ONE_PUT else None
        if signed is None:
            token = secrets.token_urlsafe(32)
            row = replace(row, token_hash=sha256(token.encode()).digest())
            base = (self.public_url or str(http.url.origin())).rstrip("/")
            url = f"{base}/audio/uploads/{row.upload_id}/content?token={token}"
        else:
            url, headers = signed
        headers = headers | {"Content-Length": str(row.size_bytes)}
        return row, target.model_copy(update={"url": url, "headers": headers})

    async def send(self, request: ApiRequest[UploadToken, None]) -> None:
        """Receive the recording, and store it as it comes."""
        row = await self._row(self.database, request.parameters.id)
        given = sha256(request.parameters.token.encode()).digest()
        if row.token_hash is None or not hmac.compare_digest(row.token_hash, given):
            raise NotFound(NO_UPLOAD)
        if await self.database.job(row.tenant_id, row.job_id) is not None:
            raise Conflict("the upload is completed; its recording cannot be replaced")
        with self.at_once.acquire(replace(request.caller, whose=row.tenant_id)):
            try:
                body = pieces(request.http, row.size_bytes)
                await self.store.put(self.store.name(row.uri), body, "application/octet-stream")
            except TooLong:
                detail = f"this upload was said to have {row.size_bytes} bytes; begin another one"
                raise web.HTTPRequestEntityTooLarge(row.size_bytes, 0, text=detail) from None

    async def complete(self, request: ApiRequest[UploadSelector, None]) -> web.StreamResponse:
        """Create the job of a recording that has arrived."""
        tenant = request.parameters.of(request.caller)
        row = await self._row(database := self.database.acting_as(tenant), request.parameters.id, tenant)
        job, is_new = await database.job(tenant, row.job_id), False
        if job is None:
            arrived = await self._arrived(row)
            if arrived != row.size_bytes:
                raise Conflict(f"of {row.size_bytes} bytes, {arrived or 0} have arrived; PUT the recording first")
            upload = AudioUploaded.model_validate(row.upload)
            try:
                job, is_new = await self.uploads.create_from_store(upload, request.caller.id)
            except Contended:
                raise NotFound(NO_UPLOAD) from None
        return uploaded(job, self.store.name, is_new=is_new, operator=request.caller.is_operator)

    async def _arrived(self, row: DirectUpload) -> int | None:
        """How many bytes of the recording there are. When all parts are there, they become the recording."""
        arrived = await self.store.size(row.uri)
        if arrived is None and row.parts_id is not None:
            return await self.store.join_parts(row.uri, row.parts_id, row.size_bytes)
        return arrived

    async def _row(self, database: KeepsUploads, id: UUID, tenant: str | None = None) -> DirectUpload:
        row = await database.direct_upload(id)
        if row is None or tenant not in (None, row.tenant_id):
            raise NotFound(NO_UPLOAD)
        if row.expires_at < await self.database.now() and await database.job(row.tenant_id, row.job_id) is None:
            raise NotFound(NO_UPLOAD)
        return row


def part_sizes(size: int) -> list[int]:
    """The sizes of the parts of a recording: at most `PARTS`, of `PART` bytes or more but for the last."""
    part = max(PART, -(-size // PARTS))
    return [min(part, size - start) for start in range(0, size, part)]
