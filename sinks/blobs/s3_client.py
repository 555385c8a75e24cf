"""The connection to an S3 server: one client of the SDK, a time limit for each request, and errors explained."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from schemas.calls.time_limit import not_counted
from sinks.blobs import rules
from sinks.blobs.s3_errors import Place, explain, failures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sinks.blobs.threads import Threads

#: Bytes a second below which a transfer counts as hanging.
_SLOWEST: Final = 1 << 20

#: With this the SDK sends and expects checksums only where S3's protocol demands them.
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

    def checksum(self, sha256: bytes) -> dict[str, str]:
        """The parameter of a write that lets the server verify the content; empty where it has no checksums."""
        return {"ChecksumSHA256": b64encode(sha256).decode()} if self.checksums else {}


class S3Client:
    """Requests to one bucket. It connects when first used; `keys` are access key, secret key and session token.

    Every method raises what `sinks.blobs.s3_errors.explain` makes of an error.
    """

    def __init__(
        self,
        place: Place,
        threads: Threads,
        *,
        region: str | None,
        endpoint_url: str | None,
        public_endpoint_url: str | None,
        keys: tuple[str | None, str | None, str | None],
        timeout: float,
        attempts: int,
        connections: int,
    ) -> None:
        self.place = place
        self.dialect = Dialect()
        self._threads = threads
        self._region = region
        self._endpoint = endpoint_url
        self._public_endpoint = public_endpoint_url
        self._keys = keys
        self._timeout = timeout
        self._attempts = attempts
        self._connections = connections
        self._opening = asyncio.Lock()
        self._open = AsyncExitStack()
        self._client: Any = None
        self._signer: Any = None

    async def connected(self) -> Any:
        """The SDK's client."""
        async with self._opening:
            if self._client is None:
                self._client = await self._connect(self._endpoint)
        return self._client

    async def _signing(self) -> Any:
        """The client whose URLs others can reach. It asks the server nothing."""
        if self._public_endpoint is None:
            return await self.connected()
        async with self._opening:
            if self._signer is None:
                self._signer = await self._connect(self._public_endpoint)
        return self._signer

    async def _connect(self, endpoint_url: str | None) -> Any:
        create, config = await self._threads.run(_sdk)  # half a second of imports, and more on a busy machine
        access_key, secret_key, session_token = self._keys
        context = create(
            "s3",
            region_name=self._region,
            endpoint_url=endpoint_url,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            aws_session_token=session_token,
            config=config(
                **({} if self.dialect.checksums else _NO_CHECKSUMS),
                connect_timeout=min(5.0, self._timeout),
                read_timeout=60,  # what completing a large upload may take; `call` is stricter otherwise
                retries={"mode": "standard", "total_max_attempts": self._attempts},
                max_pool_connections=self._connections,
                signature_version="s3v4",  # else some regions would presign with the one before it
                s3={"addressing_style": "path" if endpoint_url else "auto"},
            ),
        )
        return await self._open.enter_async_context(context)

    async def call(self, operation: str, *, moved: int = 0, **parameters: Any) -> Any:
        """One request. Its time limit is `timeout`, and the time that `moved` bytes take at the slowest."""
        with self._explained(operation, parameters.get("Key", "")):
            client = await self.connected()
            async with asyncio.timeout(self._timeout + moved / _SLOWEST):
                return await getattr(client, operation)(Bucket=self.place.bucket, **parameters)

    async def read(self, body: Any) -> bytes:
        """The next piece of an answer's body; empty at its end."""
        with self._explained("get_object"):
            async with asyncio.timeout(self._timeout):
                piece: bytes = await body.read(rules.PIECE)
                return piece

    async def presign(self, key: str, expires_s: int) -> str:
        """A URL that gives read access to an object."""
        return await self._presigned("get_object", expires_s, Key=key)

    async def presign_put(self, key: str, expires_s: int, **parameters: Any) -> str:
        """A URL that takes an object with these parameters."""
        return await self._presigned("put_object", expires_s, Key=key, **parameters)

    async def presign_part(self, expires_s: int, **parameters: Any) -> str:
        """A URL that takes a part of a multipart upload."""
        return await self._presigned("upload_part", expires_s, **parameters)

    async def _presigned(self, operation: str, expires_s: int, **parameters: Any) -> str:
        with self._explained(operation):
            client = await self._signing()
            where = {"Bucket": self.place.bucket, **parameters}
            url: str = await client.generate_presigned_url(operation, Params=where, ExpiresIn=expires_s)
        return url

    async def speak(self, dialect: Dialect) -> None:
        """Use this dialect from now on; requests under way end in the one before."""
        if dialect.checksums != self.dialect.checksums:
            async with self._opening:
                self._client = None
        self.dialect = dialect

    async def close(self) -> None:
        """Release the connections."""
        self._client = self._signer = None
        await self._open.aclose()

    @contextmanager
    def _explained(self, operation: str, key: str = "") -> Iterator[None]:
        try:
            with not_counted():
                yield
        except failures() as exc:
            raise explain(exc, operation, self.place, key) from exc


def _sdk() -> tuple[Callable[..., Any], Callable[..., Any]]:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    return get_session().create_client, AioConfig
