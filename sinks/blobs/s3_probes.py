"""Probes of an S3 server: which newer parts of the protocol it has, and which permissions the key lacks."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from schemas.errors import ConcordError, NotFound
from sinks.blobs.s3_client import Dialect
from sinks.blobs.s3_errors import PERMISSIONS, Denied, Exists, Unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sinks.blobs.s3_client import S3Client

log = logging.getLogger(__name__)

#: What a probe holds.
_PROBE: Final = b"Concord was here."


class S3Probes:
    """Probes are written below the prefix of the client's place, with the store's own `encryption` parameters."""

    def __init__(self, client: S3Client, encryption: Mapping[str, str]) -> None:
        self._client = client
        self._encryption = encryption
        self._learning = asyncio.Lock()

    async def learn(self, known: Dialect) -> None:
        """Find out which optional parts of the protocol the server has, by writing a probe twice, and make that the
        client's dialect; unless another call has done so since the dialect was `known`.
        """
        async with self._learning:
            if self._client.dialect != known:
                return
            key = f"{self._client.place.prefix}_check/{uuid4().hex}.txt"
            probe: dict[str, Any] = {"Key": key, "Body": _PROBE, **self._encryption}
            checksums = conditional = False
            try:
                await self._client.speak(Dialect())
                with suppress(Unsupported):
                    await self._client.call(
                        "put_object", **probe | self._client.dialect.checksum(hashlib.sha256(_PROBE).digest())
                    )
                    checksums = True
                if not checksums:
                    await self._client.speak(Dialect(checksums=False))
                    await self._client.call("put_object", **probe)
                with suppress(Unsupported):
                    await self._client.call("put_object", **probe, IfNoneMatch="*")
            except Exists:
                conditional = True
            finally:
                with suppress(ConcordError):
                    await self._client.call("delete_object", Key=key)
            await self._client.speak(Dialect(checksums=checksums, conditional=conditional, learned=True))
            for remark in self._client.dialect.remarks:
                log.warning("%s: %s", self._client.place, remark)

    async def denied(self, name: str, first: Denied) -> Denied:
        """All permissions that are missing, and not only the first: so that an operator can grant them at once."""
        key = self._client.place.prefix + name
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
                        await self._client.call(operation, **about)
                    granted.append(permission)
                except Denied:
                    denied.append(permission)
        return Denied(self._client.place, denied, first.said, granted=granted)
