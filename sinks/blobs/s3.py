"""Blobs in a bucket: Amazon S3, or anything that speaks its protocol."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from base64 import b64encode
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile, TemporaryDirectory, gettempdir
from typing import IO, TYPE_CHECKING, Any, Final
from uuid import uuid4

from schemas.errors import ConcordError, Misconfigured, NotFound, SettingsError, Unavailable
from schemas.time_limit import not_counted
from sinks.blobs import rules
from sinks.blobs.s3_errors import PERMISSIONS, Denied, Exists, IsFolder, PastEnd, Place, Unsupported, explain, failures
from sinks.blobs.threads import Threads, settled
from sinks.ports.blobs import Blob

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

log = logging.getLogger(__name__)

#: Bytes in a part of a multipart upload, and the most that goes up in one request. One part is in memory at a time.
PART: Final = 16 << 20

#: Bytes of UTF-8 in a key, by S3's rules.
KEY_LIMIT: Final = 1024

#: Parts a multipart upload may have, by S3's rules.
_PARTS: Final = 10_000

#: Bytes a second below which a transfer counts as hanging.
_SLOWEST: Final = 1 << 20

#: Seconds for cleaning up after a cancellation. What is left then is the bucket's lifecycle rule's.
_CLEANUP_S: Final = 5.0


#: What a probe holds, and how the SDK is told to send and expect checksums only where S3's protocol demands them.
_PROBE: Final = b"Concord was here."
_NO_CHECKSUMS: Final = {
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server that speaks S3 has of the protocol's newer parts. Older ones answer 501, or ignore them."""

    #: x-amz-checksum-sha256 (since 2022).
    checksums: bool = True
    #: `If-None-Match: *` on writes (since 2024).
    conditional: bool = True
    #: Whether it was found out, or is only hoped for.
    learned: bool = False

    @property
    def remarks(self) -> Sequence[str]:
        """What is missing, and what that means."""
        conditions = (
            "it does not keep `If-None-Match: *`: a recording is looked for before it is written, and of two writers "
            "at the same moment the last one's stays"
        )
        checksums = "it takes no x-amz-checksum headers: what is written is verified when it is read, by our own sha256"
        return [*([] if self.conditional else [conditions]), *([] if self.checksums else [checksums])]


class S3Store:
    """A bucket, or what is below `prefix` in it; URIs are `s3://bucket/key`, the key as it is (not percent-encoded).

    Without keys the standard AWS chain finds some: environment, profile, the role of the pod or machine.
    `sse` is a value of x-amz-server-side-encryption ("AES256", "aws:kms"), or the ARN of a KMS key. `timeout` is the
    seconds a request may take, up to `attempts` in all, before it is `Unavailable`; a body adds its size at 1 MiB/s.
    It connects when first used; `check` does, so call that at the start.

    The sha256 goes into the object's metadata, which S3 takes before the content: so streamed content is first spooled,
    in memory up to 16 MiB, else in a nameless file in `spool` (a kill leaves nothing), then sent with its checksums.
    A kill in the middle of a multipart upload leaves parts that nobody sees and somebody pays for: let a lifecycle rule
    of the bucket remove them (AbortIncompleteMultipartUpload). In a bucket with versions, `delete` needs a rule too.
    """

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        region: str | None = None,
        endpoint_url: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        session_token: str | None = None,
        sse: str | None = None,
        timeout: float = 15.0,
        attempts: int = 3,
        connections: int = 50,
        spool: Path | None = None,
    ) -> None:
        self._bucket = bucket
        self._prefix = _folder(prefix)
        self._region = region
        self._endpoint = endpoint_url
        self._keys = access_key, secret_key, session_token
        self._encryption = _encryption(sse)
        self._timeout = timeout
        self._attempts = attempts
        self._connections = connections
        self._spool = str(spool or gettempdir())
        self._base = f"s3://{bucket}/{self._prefix}"
        self._place = Place(bucket, self._prefix, endpoint_url or "Amazon S3")
        self._threads = Threads(4)
        self._opening = asyncio.Lock()
        self._open = AsyncExitStack()
        self._client: Any = None
        self._learning = asyncio.Lock()
        self._dialect = Dialect()

    async def put(
        self, name: str, content: bytes | AsyncIterator[bytes], content_type: str, *, once: bool = False
    ) -> Blob:
        uri = self.uri(name)
        rules.check_content_type(content_type)
        if once and not self._dialect.learned:
            await self._learn(self._dialect)
        async with self._body(content) as (body, size, sha256):
            blob = Blob(uri, size, sha256, content_type)
            try:
                return await self._put(name, body, blob, once=once)
            except Unsupported:
                before = self._dialect
                await self._learn(before)
                if self._dialect == before:
                    raise
                body.seek(0)
                return await self._put(name, body, blob, once=once)

    async def _put(self, name: str, body: IO[bytes], blob: Blob, *, once: bool) -> Blob:
        """Write what `blob` says, in the dialect of this server; what is there then."""
        key, dialect = self._prefix + name, self._dialect
        about = {"ContentType": blob.content_type, "Metadata": {"sha256": blob.sha256}, **self._encryption}
        condition = {"IfNoneMatch": "*"} if once and dialect.conditional else {}
        if once and not condition and (there := await self.stat(blob.uri)) is not None:
            return there
        try:
            async with self._folder_races(name):
                if blob.size_bytes <= PART:
                    about |= _checksum(dialect, bytes.fromhex(blob.sha256)) | condition
                    await self._call("put_object", moved=blob.size_bytes, Key=key, Body=body, **about)
                else:
                    await self._upload(key, body, blob.size_bytes, about, condition)
        except Exists:
            return await self._already(blob.uri)
        # Without the condition another writer may have been as fast: what is stored counts, for both.
        return await self._already(blob.uri) if once and not condition else blob

    async def _already(self, uri: str) -> Blob:
        """What is there. It may be our own: the SDK sends again what had no answer, and meets what it wrote."""
        if (found := await self.stat(uri)) is None:
            raise Unavailable(f"{uri} was there when it was to be written, and then was not")
        return found

    async def get(self, uri: str) -> bytes:
        return b"".join([piece async for piece in self.stream(uri)])

    async def stream(self, uri: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        rules.check_range(start, end)
        key = self._key(uri)
        if start == end:  # HTTP has no empty range
            await self._call("head_object", Key=key)
            return
        wanted: dict[str, Any] = (
            {} if start == 0 and end is None else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        )
        try:
            answer = await self._call("get_object", Key=key, **wanted)
        except PastEnd:
            return
        # S3's own checksum of a blob sent in parts is one of checksums, which the SDK does not compare.
        expected = None if wanted else answer["Metadata"].get("sha256")
        digest = hashlib.sha256()
        async with answer["Body"] as body:
            while piece := await self._read(body):
                digest.update(piece)
                yield piece
        if expected not in (None, digest.hexdigest()):
            raise Unavailable(f"{uri} is not what was stored: damaged on its way, or in {self._place}")

    async def stat(self, uri: str) -> Blob | None:
        try:
            head = await self._call("head_object", Key=self._key(uri))
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
        where = {"Bucket": self._bucket, "Key": self._key(uri)}
        with self._explained("get_object"):
            client = await self._connected()
            url: str = await client.generate_presigned_url("get_object", Params=where, ExpiresIn=expires_s)
        return url

    async def delete(self, uri: str) -> None:
        with suppress(NotFound):
            await self._call("delete_object", Key=self._key(uri))

    async def list(self, prefix: str) -> AsyncIterator[str]:
        more: dict[str, Any] = {"Prefix": self._prefix + rules.check_prefix(prefix)}
        while True:
            page = await self._call("list_objects_v2", **more)
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
            await self._learn(self._dialect)
            await self._probe(name)
        except Denied as exc:
            raise await self._denied(name, exc) from exc
        return self._dialect.remarks

    async def _learn(self, known: Dialect) -> None:
        """Find out which of what we would like to use this server has, by writing a probe twice; unless another has
        found out since the dialect was `known`.
        """
        async with self._learning:
            if self._dialect != known:
                return
            key = f"{self._prefix}_check/{uuid4().hex}.txt"
            probe: dict[str, Any] = {"Key": key, "Body": _PROBE, **self._encryption}
            checksums = conditional = False
            try:
                await self._speak(Dialect())
                with suppress(Unsupported):
                    await self._call("put_object", **probe | _checksum(self._dialect, hashlib.sha256(_PROBE).digest()))
                    checksums = True
                if not checksums:
                    await self._speak(Dialect(checksums=False))
                    await self._call("put_object", **probe)
                with suppress(Unsupported):
                    await self._call("put_object", **probe, IfNoneMatch="*")
            except Exists:
                conditional = True
            finally:
                with suppress(ConcordError):
                    await self._call("delete_object", Key=key)
            await self._speak(Dialect(checksums=checksums, conditional=conditional, learned=True))
            for remark in self._dialect.remarks:
                log.warning("%s: %s", self._place, remark)

    async def _speak(self, dialect: Dialect) -> None:
        """Use this dialect from now on; requests under way end in the one before."""
        if dialect.checksums != self._dialect.checksums:
            async with self._opening:
                self._client = None
        self._dialect = dialect

    async def _probe(self, name: str) -> None:
        content = uuid4().hex.encode()
        blob = await self.put(name, content, "text/plain")
        try:
            read, seen = await self.get(blob.uri), await self.stat(blob.uri)
            part = b"".join([piece async for piece in self.stream(blob.uri, 1, 3)])
            about = {"ContentType": "text/plain", "Metadata": {"sha256": blob.sha256}, **self._encryption}
            await self._upload(self._prefix + name, BytesIO(content), len(content), about, {})
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

    async def _denied(self, name: str, first: Denied) -> Denied:
        """All that is denied, and not only what was met first: so that it can be mended at once."""
        key = self._prefix + name
        denied, granted = list(first.permissions), []
        for operation, about in (
            ("put_object", {"Key": key, "Body": b"", **self._encryption}),
            ("head_object", {"Key": key}),
            ("list_objects_v2", {"Prefix": key}),
            ("delete_object", {"Key": key}),
        ):
            permission = PERMISSIONS[operation]
            if permission not in denied:
                try:
                    with suppress(NotFound):
                        await self._call(operation, **about)
                    granted.append(permission)
                except Denied:
                    denied.append(permission)
        return Denied(self._place, denied, first.said, granted=granted)

    async def close(self) -> None:
        self._client = None
        await self._open.aclose()
        await self._threads.close()

    # Requests.

    async def _connected(self) -> Any:
        async with self._opening:
            if self._client is None:
                self._client = await self._connect()
        return self._client

    async def _connect(self) -> Any:
        create, config = await self._threads.run(_sdk)  # half a second of imports, and more on a busy machine
        access_key, secret_key, session_token = self._keys
        context = create(
            "s3",
            region_name=self._region,
            endpoint_url=self._endpoint,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            aws_session_token=session_token,
            config=config(
                **({} if self._dialect.checksums else _NO_CHECKSUMS),
                connect_timeout=min(5.0, self._timeout),
                read_timeout=60,  # how long a large upload may be put together; `_call` is stricter with all else
                retries={"mode": "standard", "total_max_attempts": self._attempts},
                max_pool_connections=self._connections,
                signature_version="s3v4",  # else some regions would presign with the one before it
                s3={"addressing_style": "path" if self._endpoint else "auto"},
            ),
        )
        return await self._open.enter_async_context(context)

    async def _call(self, operation: str, *, moved: int = 0, **parameters: Any) -> Any:
        """One request. It gets the time that `moved` bytes take at the slowest, and the store's timeout on top."""
        with self._explained(operation, parameters.get("Key", "")):
            client = await self._connected()
            async with asyncio.timeout(self._timeout + moved / _SLOWEST):
                return await getattr(client, operation)(Bucket=self._bucket, **parameters)

    async def _read(self, body: Any) -> bytes:
        with self._explained("get_object"):
            async with asyncio.timeout(self._timeout):
                piece: bytes = await body.read(rules.PIECE)
                return piece

    @contextmanager
    def _explained(self, operation: str, key: str = "") -> Iterator[None]:
        try:
            with not_counted():
                yield
        except failures() as exc:
            raise explain(exc, operation, self._place, key) from exc

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
        with SpooledTemporaryFile(PART, dir=self._spool) as file:
            async for piece in rules.gathered(content):
                await self._threads.run(digest.update, piece)
                await self._write(file, piece)
            size = file.tell()
            file.seek(0)
            yield file, size, digest.hexdigest()

    @asynccontextmanager
    async def _folder_races(self, name: str) -> AsyncIterator[None]:
        """Gateways over files say "is a folder" also when a delete takes a put's folder away (versitygw#1988): look."""
        try:
            yield
        except IsFolder:
            async for _ in self.list(f"{name}/"):
                raise
            raise Unavailable(f"{self._place}: the folder of {name} was removed while it was written") from None

    async def _upload(
        self, key: str, body: IO[bytes], size: int, about: dict[str, Any], condition: dict[str, str]
    ) -> None:
        """In parts, one after the other; S3 shows none of it before the last step."""
        upload = await self._begin(key, about)
        try:
            length = max(PART, math.ceil(size / _PARTS))
            numbers = range(1, math.ceil(size / length) + 1)
            parts = [
                await self._part(upload, number, *await self._threads.run(_cut, body, length)) for number in numbers
            ]
            done = {"MultipartUpload": {"Parts": parts}, **condition, **upload}
            await self._call("complete_multipart_upload", moved=size, **done)
        except BaseException:
            await self._abort(upload)
            raise

    async def _begin(self, key: str, about: dict[str, Any]) -> dict[str, Any]:
        """Key and id of a new multipart upload. Cancelled meanwhile, it waits for the id, to abort what has that id."""
        about = ({"ChecksumAlgorithm": "SHA256"} if self._dialect.checksums else {}) | about
        asking = asyncio.create_task(self._call("create_multipart_upload", Key=key, **about))
        try:
            answer = await asyncio.shield(asking)
        except asyncio.CancelledError:
            if await settled(asking, _CLEANUP_S) and asking.exception() is None:
                await self._abort({"Key": key, "UploadId": asking.result()["UploadId"]})
            asking.cancel()
            raise
        return {"Key": key, "UploadId": answer["UploadId"]}

    async def _part(self, upload: dict[str, Any], number: int, content: BytesIO, sha256: bytes) -> dict[str, Any]:
        part = {"PartNumber": number, **_checksum(self._dialect, sha256)}
        answer = await self._call("upload_part", moved=content.getbuffer().nbytes, Body=content, **part, **upload)
        return {**part, "ETag": answer["ETag"]}

    async def _abort(self, upload: dict[str, Any]) -> None:
        """Remove the parts, also when we are being cancelled. What fails here must not hide why we are here."""
        aborting = asyncio.create_task(self._call("abort_multipart_upload", **upload))
        if not await settled(aborting, _CLEANUP_S):
            aborting.cancel()
        elif aborting.exception() is None:
            return
        log.warning("parts of %s stay in bucket %s until a lifecycle rule removes them", upload["Key"], self._bucket)

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
        """The sha256 of an object that another program stored, without saying it."""
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


def _base64(digest: bytes) -> str:
    return b64encode(digest).decode()


def _checksum(dialect: Dialect, sha256: bytes) -> dict[str, str]:
    return {"ChecksumSHA256": _base64(sha256)} if dialect.checksums else {}


def _sdk() -> tuple[Callable[..., Any], Callable[..., Any]]:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    return get_session().create_client, AioConfig


def _cut(body: IO[bytes], length: int) -> tuple[BytesIO, bytes]:
    """The next `length` bytes and their sha256.

    As a file, for plain bytes aiohttp sends in one go, holding up the event loop. Written piece by piece, for a file
    made of one bytes object it would copy.
    """
    part, digest = BytesIO(), hashlib.sha256()
    while piece := body.read(min(rules.PIECE, length - part.tell())):
        part.write(piece)
        digest.update(piece)
    part.seek(0)
    return part, digest.digest()


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
