"""Blobs in a bucket: Amazon S3, or anything that speaks its protocol."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager, contextmanager, suppress
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile, TemporaryDirectory, gettempdir
from typing import IO, TYPE_CHECKING, Any, Final
from uuid import uuid4

from schemas.errors import Misconfigured, NotFound, SettingsError, Unavailable
from sinks.blobs import rules
from sinks.blobs.s3_client import S3Client
from sinks.blobs.s3_errors import Denied, Exists, IsFolder, PastEnd, Place, Unsupported
from sinks.blobs.s3_probes import S3Probes
from sinks.blobs.s3_uploads import PART, MultipartUploads
from sinks.blobs.threads import Threads
from sinks.ports.blobs import Blob, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

#: Bytes of content that is streamed, up to which it waits in memory for its checksum.
SPOOLED: Final = 1 << 20

#: Bytes of UTF-8 in a key, by S3's rules.
KEY_LIMIT: Final = 1024

#: The headers by which a PUT asks for encryption, by the SDK's names.
_ENCRYPTION_HEADERS: Final = {
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
}


class S3Store(Store):
    """A bucket, or what is below `prefix` in it; URIs are `s3://bucket/key`, the key as it is (not percent-encoded).

    URLs that it signs for others have `public_endpoint_url`, where the server has another address for them.
    Without keys the standard AWS chain finds some: environment, profile, the role of the pod or machine.
    `sse` is a value of x-amz-server-side-encryption ("AES256", "aws:kms"), or the ARN of a KMS key. `timeout` is the
    seconds a request may take, up to `attempts` in all, before it is `Unavailable`; a body adds its size at 1 MiB/s.
    It connects when first used; `check` does, so call that at the start.

    The sha256 goes into the object's metadata, which S3 takes before the content: so streamed content is first spooled,
    in memory up to 1 MiB, else in a nameless file in `spool` (a kill leaves nothing), then sent with its checksums.
    A kill in the middle of a multipart upload leaves invisible parts, which are billed. `delete` removes those of its
    blob, so that a recording whose upload was killed is gone when the sweeper deletes it as an orphan; let a lifecycle
    rule of the bucket remove what a repeated upload leaves beside its blob (AbortIncompleteMultipartUpload).
    In a bucket with versions, `delete` needs a rule too.
    """

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        region: str | None = None,
        endpoint_url: str | None = None,
        public_endpoint_url: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        session_token: str | None = None,
        sse: str | None = None,
        timeout: float = 15.0,
        attempts: int = 3,
        connections: int = 50,
        spool: Path | None = None,
    ) -> None:
        self._prefix = _folder(prefix)
        self._encryption = _encryption(sse)
        self._spool = str(spool or gettempdir())
        self._base = f"s3://{bucket}/{self._prefix}"
        self._place = Place(bucket, self._prefix, endpoint_url or "Amazon S3")
        self._threads = Threads(4)
        self._client = S3Client(
            self._place,
            self._threads,
            region=region,
            endpoint_url=endpoint_url,
            public_endpoint_url=public_endpoint_url,
            keys=(access_key, secret_key, session_token),
            timeout=timeout,
            attempts=attempts,
            connections=connections,
        )
        self._uploads = MultipartUploads(self._client, self._threads)
        self._probes = S3Probes(self._client, self._encryption)

    async def put(
        self, name: str, content: bytes | AsyncIterator[bytes], content_type: str, *, once: bool = False
    ) -> Blob:
        uri = self.uri(name)
        rules.check_content_type(content_type)
        if once and not self._client.dialect.learned:
            await self._probes.learn(self._client.dialect)
        async with self._body(content) as (body, size, sha256):
            blob = Blob(uri, size, sha256, content_type)
            try:
                return await self._put(name, body, blob, once=once)
            except Unsupported:
                before = self._client.dialect
                await self._probes.learn(before)
                if self._client.dialect == before:
                    raise
                body.seek(0)
                return await self._put(name, body, blob, once=once)

    async def _put(self, name: str, body: IO[bytes], blob: Blob, *, once: bool) -> Blob:
        """Write the body as `blob` describes it, in the dialect of this server; the blob that is stored afterwards."""
        key, dialect = self._prefix + name, self._client.dialect
        about = {"ContentType": blob.content_type, "Metadata": {"sha256": blob.sha256}, **self._encryption}
        condition = {"IfNoneMatch": "*"} if once and dialect.conditional else {}
        if once and not condition and (there := await self.stat(blob.uri)) is not None:
            return there
        try:
            async with self._folder_races(name):
                if blob.size_bytes <= PART:
                    about |= dialect.checksum(bytes.fromhex(blob.sha256)) | condition
                    await self._client.call("put_object", moved=blob.size_bytes, Key=key, Body=body, **about)
                else:
                    await self._uploads.upload(key, body, blob.size_bytes, about, condition)
        except Exists:
            return await self._already(blob.uri)
        # Without the condition another writer may have been as fast: what is stored counts, for both.
        return await self._already(blob.uri) if once and not condition else blob

    async def _already(self, uri: str) -> Blob:
        """The blob that exists. It may be this call's own: the SDK repeats a request without an answer."""
        if (blob := await self.stat(uri)) is None:
            raise Unavailable(f"{uri} was there when it was to be written, and then was not")
        return blob

    async def get(self, uri: str) -> bytes:
        return b"".join([piece async for piece in self.stream(uri)])

    async def stream(self, uri: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        rules.check_range(start, end)
        key = self._key(uri)
        if start == end:  # HTTP has no empty range
            await self._client.call("head_object", Key=key)
            return
        limits: dict[str, Any] = (
            {} if start == 0 and end is None else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        )
        try:
            answer = await self._client.call("get_object", Key=key, **limits)
        except PastEnd:
            return
        # S3's own checksum of a blob sent in parts is one of checksums, which the SDK does not compare.
        expected = None if limits else answer["Metadata"].get("sha256")
        digest = hashlib.sha256()
        async with answer["Body"] as body:
            while piece := await self._client.read(body):
                digest.update(piece)
                yield piece
        if expected not in (None, digest.hexdigest()):
            raise Unavailable(f"{uri} is not what was stored: damaged on its way, or in {self._place}")

    async def stat(self, uri: str) -> Blob | None:
        try:
            head = await self._client.call("head_object", Key=self._key(uri))
            sha256 = head["Metadata"].get("sha256") or await self._digest(uri)
        except NotFound:
            return None
        content_type = head.get("ContentType") or rules.guess_content_type(uri)  # some servers send none
        return Blob(uri, head["ContentLength"], sha256, content_type)

    @asynccontextmanager
    async def local_path(self, uri: str) -> AsyncIterator[Path]:
        self._key(uri)
        with self._disk():
            folder = TemporaryDirectory(prefix="concord-", dir=self._spool)
        with folder:
            path = Path(folder.name, uri.rpartition("/")[2])
            await self._download(uri, path)
            yield path

    async def presigned_url(self, uri: str, expires_s: int) -> str | None:
        rules.check_expiry(expires_s)
        return await self._client.presign(self._key(uri), expires_s)

    async def presigned_put(self, uri: str, size: int, expires_s: int) -> tuple[str, dict[str, str]] | None:
        rules.check_expiry(expires_s)
        url = await self._client.presign_put(self._key(uri), expires_s, ContentLength=size, **self._encryption)
        return url, {_ENCRYPTION_HEADERS[name]: value for name, value in self._encryption.items()}

    async def begin_parts(self, uri: str, sizes: Sequence[int], expires_s: int) -> tuple[str, Sequence[str]] | None:
        rules.check_expiry(expires_s)
        return await self._uploads.begin_for_others(self._key(uri), sizes, expires_s, self._encryption)

    async def join_parts(self, uri: str, id: str, size: int) -> int:
        return await self._uploads.join(self._key(uri), id, size)

    async def remove_parts(self, uri: str, id: str) -> None:
        await self._uploads.remove_of_others(self._key(uri), id)

    async def size(self, uri: str) -> int | None:
        try:
            head = await self._client.call("head_object", Key=self._key(uri))
        except NotFound:
            return None
        return int(head["ContentLength"])

    async def tidy(self) -> None:
        """Nothing: parts of an upload are for the bucket's lifecycle rule."""

    async def delete(self, uri: str) -> None:
        with suppress(NotFound):
            await self._client.call("delete_object", Key=self._key(uri))
        await self._uploads.remove_unfinished(self._key(uri))

    async def list(self, prefix: str) -> AsyncIterator[str]:
        more: dict[str, Any] = {"Prefix": self._prefix + rules.check_prefix(prefix)}
        while True:
            page = await self._client.call("list_objects_v2", **more)
            for item in page.get("Contents", ()):
                name = item["Key"].removeprefix(self._prefix)
                if rules.is_name(name):  # not a console's folder marker, say
                    yield self.uri(name)
            if not page.get("IsTruncated"):
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    def uri(self, name: str) -> str:
        return self._base + rules.check_name(name)

    def name(self, uri: str) -> str:
        return rules.name_in(self._base, uri)

    async def check(self) -> Sequence[str]:
        """Write, read, list and delete probes as work does; raises with what is wrong: key, bucket, permission or the
        way there.
        """
        name = f"_check/{uuid4().hex}.txt"
        try:
            await self._probes.learn(self._client.dialect)
            await self._probe(name)
        except Denied as exc:
            raise await self._probes.denied(name, exc) from exc
        return self._client.dialect.remarks

    async def _probe(self, name: str) -> None:
        content = uuid4().hex.encode()
        blob = await self.put(name, content, "text/plain")
        try:
            read, seen = await self.get(blob.uri), await self.stat(blob.uri)
            part = b"".join([piece async for piece in self.stream(blob.uri, 1, 3)])
            about = {"ContentType": "text/plain", "Metadata": {"sha256": blob.sha256}, **self._encryption}
            await self._uploads.upload(self._prefix + name, BytesIO(content), len(content), about, {})
            again = await self.get(blob.uri)
            listed = [uri async for uri in self.list("_check/")]
        finally:
            await self.delete(blob.uri)
        left = await self.stat(blob.uri)
        if (
            {read, again} != {content}
            or part != content[1:3]
            or seen != blob
            or blob.uri not in listed
            or left is not None
        ):
            raise Misconfigured(f"{self._place} does not give back what is written to it: is it an S3 server?")

    async def close(self) -> None:
        await self._client.close()
        await self._threads.close()

    def _key(self, uri: str) -> str:
        return self._prefix + self.name(uri)

    # Content, on its way up and down.

    @asynccontextmanager
    async def _body(self, content: bytes | AsyncIterator[bytes]) -> AsyncIterator[tuple[IO[bytes], int, str]]:
        """The content as a file at its beginning, its bytes, and its sha256."""
        if isinstance(content, bytes):
            digest = await self._threads.run(hashlib.sha256, content)
            yield BytesIO(content), len(content), digest.hexdigest()
            return
        digest = hashlib.sha256()
        with SpooledTemporaryFile(SPOOLED, dir=self._spool) as file:
            async for piece in rules.gathered(content):
                await self._threads.run(digest.update, piece)
                await self._write(file, piece)
            size = file.tell()
            file.seek(0)
            yield file, size, digest.hexdigest()

    @asynccontextmanager
    async def _folder_races(self, name: str) -> AsyncIterator[None]:
        """Gateways over files answer "is a folder" also when a delete removes a put's folder (versitygw#1988)."""
        try:
            yield
        except IsFolder:
            async for _ in self.list(f"{name}/"):
                raise
            raise Unavailable(f"{self._place}: the folder of {name} was removed while it was written") from None

    async def _download(self, uri: str, path: Path) -> None:
        with self._disk():
            file = path.open("wb")
        with file:
            async for piece in rules.gathered(self.stream(uri)):
                await self._write(file, piece)

    async def _write(self, file: IO[bytes], piece: bytes) -> None:
        with self._disk():
            await self._threads.run(file.write, piece)

    async def _digest(self, uri: str) -> str:
        """The sha256 of an object that another program stored without that metadata."""
        digest = hashlib.sha256()
        async for piece in rules.gathered(self.stream(uri)):
            await self._threads.run(digest.update, piece)
        return digest.hexdigest()

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise Unavailable(f"no temporary file can be written in {self._spool}: {exc}. Make room there") from exc


def _folder(prefix: str) -> str:
    """The prefix with one slash at its end; empty for the whole bucket."""
    name = prefix.strip("/")
    if len(name.encode()) > KEY_LIMIT - rules.NAME_LIMIT - 1:
        raise SettingsError(f"the prefix {prefix!r} leaves too little of the {KEY_LIMIT} bytes that S3 gives a key")
    return f"{rules.check_name(name)}/" if name else ""


def _encryption(sse: str | None) -> dict[str, str]:
    if sse is None:
        return {}
    if sse.startswith("arn:"):
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": sse}
    return {"ServerSideEncryption": sse}
