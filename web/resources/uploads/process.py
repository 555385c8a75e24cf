"""`POST /audio/process`: a recording is uploaded, and its job is on its way when the answer is sent."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web
from pydantic import Field

from schemas.errors import RefusedMedia
from sinks.blobs.threads import Threads
from web.auth.access import WRITE
from web.resources.uploads.receiving import Received, receive
from web.resources.uploads.upload_view import (
    EXAMPLE,
    TEXTS,
    TenantOfUpload,
    UploadView,
    upload_of,
    uploaded,
)
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route, StreamedBody

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from schemas.events.audio import AudioUploaded
    from sinks.ports.blobs import Store
    from web.connections.caller_limit import CallerLimit
    from web.ports import TakesUploads

#: More than any limit of an upload: the limit is the tenant's, and is checked when the tenant is known.
MOST: Final = 1 << 40

_TEXT: Final[dict[str, Any]] = {"type": "string"}
_OBJECT: Final[dict[str, Any]] = {"type": "object"}
_FORM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["file"],
    "additionalProperties": False,
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "the recording"},
        "filename": _TEXT | {"maxLength": 1024},
        "content_type": _TEXT,
        "reference": _TEXT | {"maxLength": 255, "description": "your own name for the job: a repeat is no second job"},
        "job_id": _TEXT | {"description": "a UUID, if the job's id is to be yours"},
        "language": _TEXT | {"default": "auto", "description": "a BCP 47 tag"},
        "priority": {"type": "integer", "minimum": 0, "maximum": 9, "default": 5},
        "not_before": _TEXT | {"format": "date-time", "description": "the job waits until then, 90 days at most"},
        "options": _OBJECT | {"description": "JSON, as in `audio.uploaded`"},
        "metadata": _OBJECT | {"description": "JSON: your own data, which events of the job carry"},
    },
}
_AUDIO: Final[dict[str, Any]] = {"type": "string", "format": "binary"}
_BODY: Final = StreamedBody(
    {"multipart/form-data": _FORM} | dict.fromkeys(("audio/*", "video/*", "application/octet-stream"), _AUDIO), MOST
)


class UploadParameters(TenantOfUpload):
    """The fields of the form that fit in a URL, for a recording that is the whole body. A form's own come first."""

    filename: str | None = Field(None, max_length=1024)
    reference: str | None = Field(None, max_length=255)
    job_id: str | None = Field(None, max_length=128)
    language: str | None = Field(None, max_length=100)
    priority: str | None = Field(None, max_length=1, pattern="^[0-9]$")
    not_before: str | None = Field(None, max_length=40)


Request = ApiRequest[UploadParameters, None]


@dataclass
class ProcessAudio:
    """Takes recordings in requests, of so many callers at the same time."""

    uploads: TakesUploads
    store: Store
    #: Bytes that an upload of this tenant may have.
    limit: Callable[[str], Awaitable[int]]
    at_once: CallerLimit
    #: Called where tests kill the process.
    passing: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        self._threads = Threads(4)

    def routes(self) -> Sequence[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="POST",
                path="/audio/process",
                operation_id="audio_process",
                summary="Upload a recording, and have it transcribed",
                handler=self.process,
                parameters=UploadParameters,
                streamed_body=_BODY,
                responses={
                    202: ResponseSpec("the recording is stored and its job is on its way", UploadView, EXAMPLE),
                    200: ResponseSpec("there was a job with this id or reference already", UploadView, EXAMPLE),
                    409: ResponseSpec("id and reference are two jobs', or another upload of this job is under way"),
                    413: ResponseSpec("the recording is longer than an upload may be; `POST /audio/uploads` takes it"),
                    415: ResponseSpec("this is no recording; `detail` says what it is, and which formats work"),
                },
                access=WRITE,
                is_streamed=True,
                accepts_idempotency_key=True,
            )
        ]

    async def process(self, request: Request) -> web.StreamResponse:
        """Receive the recording; then, once for each `Idempotency-Key`, store it and create its job."""
        tenant = request.parameters.of(request.caller)
        with self.at_once.acquire(request.caller), tempfile.TemporaryDirectory(prefix="concord-upload-") as folder:
            path = Path(folder) / "audio"
            received = await receive(request.http, path, await self.limit(tenant), self._threads)
            self.passing("upload.received")
            fields = _fields(request.parameters, received)
            content = orjson.dumps([tenant, received.sha256, sorted(fields.items())])

            async def work() -> web.StreamResponse:
                return await self._create(request, upload_of(tenant, fields, request.once.new_id), path)

            return await request.once.run(sha256(content).digest(), work)

    async def _create(self, request: Request, upload: AudioUploaded, path: Path) -> web.Response:
        job, is_new = await self.uploads.known(upload), False
        if job is None:
            try:
                job, is_new = await self.uploads.create(upload, path, request.caller.id)
            except RefusedMedia as exc:
                formats = ", ".join(self.uploads.formats)
                raise web.HTTPUnsupportedMediaType(text=f"{exc}. These formats work: {formats}") from exc
        return uploaded(job, self.store.name, is_new=is_new, operator=request.caller.is_operator)


def _fields(parameters: UploadParameters, received: Received) -> dict[str, str]:
    """What the request says of the recording: in the query, in the file's part, and in fields of the form."""
    query = {name: value for name in TEXTS if (value := getattr(parameters, name, None)) is not None}
    part = {"filename": received.filename or "audio"} if received.filename or "filename" not in query else {}
    part |= {"content_type": received.content_type} if received.content_type else {}
    # An empty field of a form counts as one that is left out: it does not take the file's own name away.
    return query | part | {name: value for name, value in received.fields.items() if value or name not in part}
