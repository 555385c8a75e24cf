"""What an upload's request may say, and the answer: the job, with links to what can be done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import Field, ValidationError

from schemas import ids
from schemas.errors import NotFound
from schemas.events.audio import AudioUploaded
from schemas.events.base import Data
from schemas.ids import EVERY_TENANT
from schemas.jobs.rows import Status
from schemas.texts import written_bytes
from web.parameters import Parameters, TenantName
from web.problems import NO_TENANT, FieldProblem, InvalidRequest
from web.resources.jobs.job_view import EXAMPLE as JOB_EXAMPLE
from web.resources.jobs.links import links_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from schemas.jobs.rows import Job
    from web.auth.caller import Caller

#: Fields of a form and of a JSON body that describe the recording.
TEXTS: Final = ("filename", "content_type", "reference", "job_id", "language", "priority", "not_before")
JSONS: Final = ("options", "metadata")

#: Bytes of metadata at most: less than in an event of a producer, because ours has more beside them.
METADATA_BYTES: Final = 800_000

#: In place of the URI of a recording that is not stored yet.
NOT_STORED: Final = "upload://body"

_JOB_ID: Final = JOB_EXAMPLE["job_id"]


class TenantOfUpload(Parameters):
    """Whose recording it is."""

    tenant: TenantName | None = Field(None, description="whose recording it is, where an operator uploads")

    def of(self, caller: Caller) -> str:
        """The tenant.

        Raises:
            InvalidRequest: an operator names none.
            NotFound: the caller does not see it.
        """
        tenant = self.tenant or caller.whose
        if tenant is EVERY_TENANT:
            raise InvalidRequest([FieldProblem(parameter="tenant", detail="say whose recording this is")])
        if not caller.sees(tenant):
            raise NotFound(NO_TENANT)
        return tenant


class UploadView(Data):
    """A job whose recording was uploaded."""

    tenant_id: str
    job_id: str
    reference: str | None
    run: int
    status: Status
    filename: str
    audio_file_path: str | None = Field(description="the recording's name in the storage; null until it is stored")
    repeated: bool = Field(description="whether the job exists since an earlier request with this id or reference")
    links: dict[str, str]


EXAMPLE: Final[Mapping[str, Any]] = {
    "tenant_id": "acme",
    "job_id": _JOB_ID,
    "reference": "call 4711",
    "run": 1,
    "status": "transcribing",
    "filename": "call.wav",
    "audio_file_path": f"acme/{_JOB_ID}/original.wav",
    "repeated": False,
    "links": JOB_EXAMPLE["links"],
}


def uploaded(job: Job, name: Callable[[str], str], *, is_new: bool, operator: bool) -> web.Response:
    """202 for a new job, 200 for one that exists already. `name` gives a blob's name in the store."""
    links = links_of(job, operator=operator)
    view = UploadView(
        tenant_id=job.tenant_id,
        job_id=job.job_id,
        reference=job.reference,
        run=job.run,
        status=job.status,
        filename=job.filename,
        audio_file_path=name(job.original_uri) if job.original_uri else None,
        repeated=not is_new,
        links=links,
    )
    headers = {"Location": links["self"]}
    return web.json_response(text=view.model_dump_json(), status=202 if is_new else 200, headers=headers)


def upload_of(tenant: str, fields: Mapping[str, Any], new_id: Callable[[], UUID]) -> AudioUploaded:
    """The upload that these fields describe, with the id of its job: its own, or of its reference, or a new one.

    Raises:
        InvalidRequest: some fields are wrong, or unknown; it names each.
    """
    known = (*TEXTS, *JSONS)
    if unknown := [name for name in fields if name not in known]:
        detail = f"there is no such field; there are: file, {', '.join(known)}"
        raise InvalidRequest([FieldProblem(pointer=f"#/{name[:100]}", detail=detail) for name in unknown])
    values = {name: _json(name, value) if name in JSONS else value for name, value in fields.items()}
    # An empty field of a form counts as one that is left out.
    values = {name: value for name, value in values.items() if value not in (None, "")}
    try:
        upload = AudioUploaded.model_validate(values | {"tenant_id": tenant, "audio_uri": NOT_STORED})
    except ValidationError as exc:
        raise InvalidRequest.of_body(exc) from None
    if (length := written_bytes(upload.metadata)) > METADATA_BYTES:
        detail = f"has {length} bytes as JSON with numbers written out; at most {METADATA_BYTES} are taken"
        raise InvalidRequest([FieldProblem(pointer="#/metadata", detail=detail)])
    if upload.job_id is not None:
        return upload
    named = ids.job_of_reference(tenant, upload.reference) if upload.reference is not None else str(new_id())
    return upload.model_copy(update={"job_id": named})


def _json(name: str, value: Any) -> Any:
    """A field of a form that is JSON."""
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        raise InvalidRequest([FieldProblem(pointer=f"#/{name}", detail="is not JSON")]) from None
