"""Multipart uploads to S3: content in parts, one after the other, of which nothing is visible before the last step."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any, Final

from schemas.errors import Unavailable
from sinks.blobs import rules
from sinks.blobs.s3_errors import Denied, NoUpload, Unsupported
from sinks.blobs.threads import Threads, settled

if TYPE_CHECKING:
    from sinks.blobs.s3_client import S3Client

log = logging.getLogger(__name__)

#: Bytes in a part of a multipart upload, and the most that goes up in one request. Of one upload, one part is in memory
#: at a time; of all uploads together, so many. Six recordings of 100 MB at once took 107 MB with parts of 16 MB.
PART: Final = 8 << 20
PARTS_AT_ONCE: Final = 3

#: Parts a multipart upload may have, by S3's rules.
_PARTS: Final = 10_000

#: Those of an upload whose parts others send, so that one answer of S3 lists them all.
MOST_PARTS: Final = 1000

#: Seconds for cleaning up after a cancellation. What is left then is the bucket's lifecycle rule's.
_CLEANUP_S: Final = 5.0

#: Seconds in which a server notices that the sender of a part has gone.
_IN_FLIGHT_S: Final = 0.3


class MultipartUploads:
    """Uploads through one client; digests are computed in `threads`."""

    def __init__(self, client: S3Client, threads: Threads) -> None:
        self._client = client
        self._threads = threads
        self._in_memory = asyncio.Semaphore(PARTS_AT_ONCE)

    async def upload(
        self, key: str, body: IO[bytes], size: int, about: dict[str, Any], condition: dict[str, str]
    ) -> None:
        """Store `size` bytes of `body`; `about` and `condition` are parameters of the first and last step."""
        upload = await self._begin(key, about)
        try:
            length = max(PART, math.ceil(size / _PARTS))
            numbers = range(1, math.ceil(size / length) + 1)
            parts = [await self._part(upload, number, body, length) for number in numbers]
            done = {"MultipartUpload": {"Parts": parts}, **condition, **upload}
            await self._client.call("complete_multipart_upload", moved=size, **done)
        except BaseException:
            await self._abort(self._remove_twice(upload), upload)
            raise

    # Parts that others send, by signed URLs. S3 knows them: nothing is kept here but the upload's id.

    async def begin_for_others(
        self, key: str, sizes: Sequence[int], expires_s: int, about: dict[str, Any]
    ) -> tuple[str, list[str]]:
        """The id of a new upload, and for each part a URL that takes exactly its bytes."""
        answer = await self._client.call("create_multipart_upload", Key=key, **about)
        upload: dict[str, Any] = {"Key": key, "UploadId": answer["UploadId"]}
        urls = [
            await self._client.presign_part(expires_s, PartNumber=number, ContentLength=size, **upload)
            for number, size in enumerate(sizes, 1)
        ]
        return answer["UploadId"], urls

    async def join(self, key: str, id: str, size: int) -> int:
        """Make the object of its parts if they have `size` bytes together; how many they have."""
        upload: dict[str, Any] = {"Key": key, "UploadId": id}
        parts = (await self._client.call("list_parts", MaxParts=MOST_PARTS, **upload)).get("Parts", [])
        arrived: int = sum(part["Size"] for part in parts)
        if arrived == size:
            joined = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in parts]
            done = {"MultipartUpload": {"Parts": joined}, **upload}
            await self._client.call("complete_multipart_upload", moved=size, **done)
        return arrived

    async def remove_of_others(self, key: str, id: str) -> None:
        """Remove the parts; no error if they are gone."""
        with suppress(NoUpload):
            await self._remove({"Key": key, "UploadId": id})

    async def remove_unfinished(self, key: str) -> None:
        """Remove what killed writers of this key have left. Where the key of ours may not list it (it was not asked for
        that before), or the server cannot, it stays for the bucket's lifecycle rule.
        """
        try:
            listed = await self._client.call("list_multipart_uploads", Prefix=key)
        except (Denied, Unsupported):
            return
        for upload in listed.get("Uploads", ()):
            if upload["Key"] == key:
                await self.remove_of_others(key, upload["UploadId"])

    async def _begin(self, key: str, about: dict[str, Any]) -> dict[str, Any]:
        """Key and id of a new multipart upload. Cancelled meanwhile, it waits for the id and aborts the upload."""
        about = ({"ChecksumAlgorithm": "SHA256"} if self._client.dialect.checksums else {}) | about
        asking = asyncio.create_task(self._client.call("create_multipart_upload", Key=key, **about))
        try:
            answer = await asyncio.shield(asking)
        except asyncio.CancelledError:
            if await settled(asking, _CLEANUP_S) and asking.exception() is None:
                upload = {"Key": key, "UploadId": asking.result()["UploadId"]}
                await self._abort(self._remove(upload), upload)
            asking.cancel()
            raise
        return {"Key": key, "UploadId": answer["UploadId"]}

    async def _part(self, upload: dict[str, Any], number: int, body: IO[bytes], length: int) -> dict[str, Any]:
        """Send the next `length` bytes of `body`, when so many parts of other uploads are sent."""
        async with self._in_memory:
            content, sha256 = await self._threads.run(_cut, body, length)
            part = {"PartNumber": number, **self._client.dialect.checksum(sha256)}
            moved = content.getbuffer().nbytes
            answer = await self._client.call("upload_part", moved=moved, Body=content, **part, **upload)
        return {**part, "ETag": answer["ETag"]}

    async def _remove(self, upload: dict[str, Any]) -> None:
        await self._client.call("abort_multipart_upload", **upload)

    async def _remove_twice(self, upload: dict[str, Any]) -> None:
        """Remove the upload, and what a part left that the server was receiving meanwhile: it may be stored after the
        upload is removed (docs.aws.amazon.com, AbortMultipartUpload).
        """
        await self._remove(upload)
        await asyncio.sleep(_IN_FLIGHT_S)
        with suppress(Unavailable):  # as a rule there is no such upload any more
            await self._remove(upload)

    async def _abort(self, removal: Coroutine[Any, Any, None], upload: dict[str, Any]) -> None:
        """Remove the parts, also during a cancellation. A failure here must not hide the error that led here."""
        aborting = asyncio.create_task(removal)
        if not await settled(aborting, _CLEANUP_S):
            aborting.cancel()
        elif aborting.exception() is None:
            return
        log.warning(
            "parts of %s stay in bucket %s until a lifecycle rule removes them",
            upload["Key"],
            self._client.place.bucket,
        )


def _cut(body: IO[bytes], length: int) -> tuple[BytesIO, bytes]:
    """The next `length` bytes and their sha256.

    As a file, because aiohttp sends plain bytes in one go, which blocks the event loop. Written piece by piece, because
    a BytesIO that is made of one bytes object copies it.
    """
    part, digest = BytesIO(), hashlib.sha256()
    while piece := body.read(min(rules.PIECE, length - part.tell())):
        part.write(piece)
        digest.update(piece)
    part.seek(0)
    return part, digest.digest()
