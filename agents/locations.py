"""Where audio may come from, and how it gets into our storage: the guard between a stranger's URI and our files and
network.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver

from agents import names
from agents.audio import Probe
from agents.prober import Prober
from schemas.errors import NotFound, RefusedLocation, RefusedMedia, Transient
from schemas.events import AudioFetch
from sinks import Blob, Store

#: Seconds that one read from a remote host may take, and redirects that are followed.
READ_S, REDIRECTS = 30.0, 5

_PIECE = 1 << 18


@dataclass(frozen=True, slots=True)
class Fetched:
    """A recording in our storage, known to be audio."""

    blob: Blob
    duration_ms: int
    content_type: str


class GuardedResolver(AbstractResolver):
    """Resolves public hosts only. The check is on the addresses that will be connected to, so a second answer cannot
    differ.
    """

    def __init__(self, allow_hosts: frozenset[str]) -> None:
        self._allow = allow_hosts
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[Any]:
        """Addresses of the host; refuses it when any of them is not public."""
        found = await self._resolver.resolve(host, port, family)
        for address in found:
            check_address(host, address["host"], self._allow)
        return list(found)

    async def close(self) -> None:
        """Release the resolver."""
        await self._resolver.close()


def check_address(host: str, address: str, allow_hosts: frozenset[str]) -> None:
    """Refuse private, loopback, link-local, multicast and other special addresses, unless the host is named as
    allowed.
    """
    ip = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if host not in allow_hosts and (not ip.is_global or ip.is_multicast):
        raise RefusedLocation(
            f"audio_uri: the host {host} is not a public one; an operator may name it in CONCORD_ALLOW_HOSTS"
        )


@dataclass
class Locations:
    """Reads what this installation may read, and stores it as a job's original."""

    store: Store
    prober: Prober
    #: Folders from which `file://` may be read.
    roots: tuple[Path, ...]
    allow_hosts: frozenset[str] = frozenset()
    max_bytes: int = 2 << 30

    async def fetch(self, data: AudioFetch, *, again: bool = False) -> Fetched:
        """The recording behind `data.audio_uri`, probed and stored under the job's name.

        `again` says that another worker may have stored it already, and only its answer was lost. Raises
        `RefusedLocation`, `RefusedMedia`, or `Transient` when a host does not answer.
        """
        stored = await self._stored_earlier(data) if again else None
        async with self._as_file(data.model_copy(update={"audio_uri": stored}) if stored else data) as path:
            probe: Probe = await self.prober.probe(path, data.filename, data.content_type)
            blob = await self._stored(data, path, probe)
        # Another worker was first, and heard something else there: what is stored counts.
        return Fetched(blob, probe.duration_ms, probe.content_type) if blob else await self.fetch(data, again=True)

    async def _stored_earlier(self, data: AudioFetch) -> str | None:
        begins = self._prefix(names.original(data.tenant_id, data.job_id, ""))
        async for uri in self.store.list(f"{names.folder(data.tenant_id, data.job_id, 1)}/"):
            if uri.startswith(begins):
                return uri
        return None

    async def _stored(self, data: AudioFetch, path: Path, probe: Probe) -> Blob | None:
        """The recording as the job's original, which never changes; None if that is another one already."""
        name = names.original(data.tenant_id, data.job_id, probe.extension.lstrip("."))
        if self.store.uri(name) == data.audio_uri:
            there = await self.store.stat(data.audio_uri)
            if there is not None:
                return there
        digest = hashlib.sha256()
        blob = await self.store.put(name, _pieces(path, digest.update), probe.content_type, once=True)
        return blob if blob.sha256 == digest.hexdigest() else None

    def _as_file(self, data: AudioFetch) -> contextlib.AbstractAsyncContextManager[Path]:
        uri = data.audio_uri
        if uri.startswith(self._prefix("")):
            return self._ours(data)
        match urlsplit(uri).scheme.lower():
            case "file":
                return self._local(uri)
            case "https" | "http":
                return self._downloaded(uri)
            case scheme:
                raise RefusedLocation(
                    f"audio_uri: {scheme}:// is not read here; use https://, file:// or this installation's storage"
                )

    def _prefix(self, folder: str) -> str:
        """What the URIs of everything in a folder of our storage begin with."""
        return self.store.uri(f"{folder}x")[:-1]

    @contextlib.asynccontextmanager
    async def _ours(self, data: AudioFetch) -> AsyncIterator[Path]:
        if not data.audio_uri.startswith(self._prefix(f"{data.tenant_id}/")) or ".." in unquote(data.audio_uri):
            raise RefusedLocation("audio_uri: this part of the storage is not the tenant's")
        try:
            async with self.store.local_path(data.audio_uri) as path:
                yield path
        except NotFound as exc:
            raise RefusedLocation("audio_uri: there is no such object in the storage") from exc

    @contextlib.asynccontextmanager
    async def _local(self, uri: str) -> AsyncIterator[Path]:
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost"):
            raise RefusedLocation("audio_uri: file:// must name no host")
        path = await asyncio.to_thread(self._checked, Path(unquote(parts.path)))
        yield path

    def _checked(self, path: Path) -> Path:
        try:
            real = path.resolve(strict=True)
        except (OSError, ValueError):
            real = None
        if real is None or not any(real.is_relative_to(root) for root in self.roots) or not real.is_file():
            raise RefusedLocation("audio_uri: no such file under the folders that CONCORD_AUDIO_ROOTS allows")
        if real.stat().st_size > self.max_bytes:
            raise RefusedMedia(f"the file has {real.stat().st_size} bytes; at most {self.max_bytes} are accepted")
        return real

    @contextlib.asynccontextmanager
    async def _downloaded(self, uri: str) -> AsyncIterator[Path]:
        with tempfile.TemporaryDirectory(prefix="concord-") as folder:
            path = Path(folder) / "audio"
            try:
                await self._download(uri, path)
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                raise Transient(f"audio_uri: {urlsplit(uri).hostname} does not deliver ({type(exc).__name__})") from exc
            yield path

    async def _download(self, uri: str, path: Path) -> None:
        timeout = aiohttp.ClientTimeout(total=3600, connect=10, sock_read=READ_S)
        connector = aiohttp.TCPConnector(resolver=GuardedResolver(self.allow_hosts), use_dns_cache=False)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
            for _ in range(REDIRECTS):
                self._check_url(uri)
                async with session.get(uri, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as answer:
                    if answer.status in (301, 302, 303, 307, 308) and "Location" in answer.headers:
                        uri = urljoin(uri, answer.headers["Location"])
                        continue
                    self._check_answer(answer)
                    return await self._save(answer, path)
        raise RefusedLocation("audio_uri: too many redirects")

    def _check_url(self, uri: str) -> None:
        parts = urlsplit(uri)
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https") or (parts.scheme == "http" and host not in self.allow_hosts):
            raise RefusedLocation("audio_uri: only https:// is fetched from other hosts")
        with contextlib.suppress(ValueError):  # a name: the resolver checks what it resolves to
            check_address(host, str(ipaddress.ip_address(host)), self.allow_hosts)

    def _check_answer(self, answer: aiohttp.ClientResponse) -> None:
        if answer.status >= 500 or answer.status in (408, 425, 429):
            raise Transient(f"audio_uri: {answer.url.host} answered {answer.status}")
        if answer.status != 200:
            raise RefusedLocation(f"audio_uri: {answer.url.host} answered {answer.status}")
        if (answer.content_length or 0) > self.max_bytes:
            raise RefusedMedia(
                f"the recording has {answer.content_length} bytes; at most {self.max_bytes} are accepted"
            )

    async def _save(self, answer: aiohttp.ClientResponse, path: Path) -> None:
        size = 0
        with path.open("wb") as file:
            async for piece in answer.content.iter_chunked(_PIECE):
                size += len(piece)
                if size > self.max_bytes:
                    raise RefusedMedia(f"the recording has more than {self.max_bytes} bytes")
                await asyncio.to_thread(file.write, piece)


async def _pieces(path: Path, seen: Callable[[bytes], None]) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            await asyncio.to_thread(seen, piece)
            yield piece
