"""`GET /audio/storage-info`: where recordings are kept, what may be uploaded, and for how long it is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from schemas.events.base import Data
from schemas.ids import EVERY_TENANT
from web.resources.uploads.upload_view import TenantOfUpload
from web.route import AnyRoute, ApiRequest, ResponseSpec, Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


class StorageInfo(Data):
    """The storage, as clients need to know it."""

    backend: Literal["local", "s3"]
    fallback: bool = Field(description="whether recordings are kept in a folder while S3 is away")
    max_upload_bytes: int = Field(description="of a recording in a request (`POST /audio/process`)")
    max_direct_upload_bytes: int = Field(description="of one that is uploaded by `POST /audio/uploads`")
    max_duration_s: int
    formats: tuple[str, ...] = Field(description="containers that are read, whatever a file is named")
    retention_days: dict[str, float] = Field(description="days for which things are kept; others until deleted")


EXAMPLE: Final = {
    "backend": "s3",
    "fallback": False,
    "max_upload_bytes": 104_857_600,
    "max_direct_upload_bytes": 2_147_483_648,
    "max_duration_s": 36_000,
    "formats": ["flac", "mp3", "wav"],
    "retention_days": {"audit": 365.0},
}


@dataclass(frozen=True)
class StorageInformation:
    """What is said of the storage."""

    info: StorageInfo
    #: Bytes that an upload of this tenant may have.
    limit: Callable[[str], Awaitable[int]]

    def routes(self) -> Sequence[AnyRoute]:
        """The one route."""
        return [
            Route(
                method="GET",
                path="/audio/storage-info",
                operation_id="audio_storage_info",
                summary="Where recordings are kept, and what may be uploaded",
                handler=self.show,
                parameters=TenantOfUpload,
                responses={200: ResponseSpec("limits are the tenant's, if one is known", StorageInfo, EXAMPLE)},
            )
        ]

    async def show(self, request: ApiRequest[TenantOfUpload, None]) -> StorageInfo:
        """The storage; with the tenant's own limit, where there is one."""
        if request.caller.whose is EVERY_TENANT and request.parameters.tenant is None:
            return self.info
        limit = await self.limit(request.parameters.of(request.caller))
        return self.info.model_copy(update={"max_upload_bytes": limit})
