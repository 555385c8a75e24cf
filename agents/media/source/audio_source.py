"""Where audio may come from, and how it gets into our storage: the guard between a stranger's URI and our files and
network.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, unquote_plus

from agents.media.decoding.decoder import Probe
from agents.media.probe_pool import ProbePool
from agents.media.source.audio_download import Downloader
from agents.media.source.audio_files import AudioFiles
from agents.media.source.audio_url import AllowedHosts, host_of, web_url
from schemas import blob_names
from schemas.errors import NotFound, RefusedLocation, RefusedMedia, Transient, Unavailable
from schemas.events.audio import AudioFetch
from schemas.ids import Key
from sinks.blobs import rules
from sinks.blobs.threads import Threads
from sinks.ports.blobs import Blob, Store

_PIECE = 1 << 18


@dataclass(frozen=True, slots=True)
class Fetched:
    """A recording in our storage, known to be audio."""

    blob: Blob
    duration_ms: int
    content_type: str
    #: What is odd about it; see `agents.media.decoding.decoder.Probe.notes`.
    notes: tuple[str, ...] = ()


async def _nobody(_key: Key, _uri: str) -> None:
    """Where orphans are nobody's concern."""


@dataclass
class AudioSource:
    """Reads what this installation may read, and stores it as a job's original."""

    store: Store
    probe_pool: ProbePool
    #: Folders from which `file://` may be read.
    roots: tuple[Path, ...]
    #: Hosts, or host:port, that may be private or speak plain HTTP.
    allow_hosts: frozenset[str] = frozenset()
    max_bytes: int = 2 << 30
    #: Folders of this installation, which `file://` never reads.
    own: tuple[Path, ...] = ()
    #: Called with each blob before it is written, see `sinks.ports.upkeep.blob_intents`.
    intended: Callable[[Key, str], Awaitable[None]] = _nobody
    _downloader: Downloader = field(init=False)
    _files: AudioFiles = field(init=False)
    _threads: Threads = field(init=False)

    def __post_init__(self) -> None:
        self._downloader = Downloader(AllowedHosts.of(self.allow_hosts), max_bytes=self.max_bytes)
        self._files = AudioFiles(self.roots, self.own, self.max_bytes)
        self._threads = Threads(8)

    async def close(self) -> None:
        """Release the threads."""
        await self._downloader.close()
        await self._threads.close()

    async def fetch(self, data: AudioFetch, *, again: bool = False) -> Fetched:
        """The recording behind `data.audio_uri`, probed and stored under the job's name.

        `again` says that another worker may have stored it already, and only its answer was lost. Raises
        `RefusedLocation`, `RefusedMedia`, `Transient` when a host does not deliver, or `Unavailable` when our own disk
        or store does not take it.
        """
        stored = await self._stored_earlier(data) if again else None
        if stored is not None:
            data = data.model_copy(update={"audio_uri": stored})
        with _our_disk():
            async with self.as_file(data) as path:
                probe: Probe = await self.probe_pool.probe(
                    path, data.filename, data.content_type, tenant=data.tenant_id
                )
                blob = await self._stored(data, path, probe)
        # Another worker was first, and heard something else there: what is stored counts.
        if blob is None:
            return await self.fetch(data, again=True)
        return Fetched(blob, probe.duration_ms, probe.content_type, probe.notes)

    async def _stored_earlier(self, data: AudioFetch) -> str | None:
        begins = self._prefix(blob_names.original(data.tenant_id, data.job_id, ""))
        async for uri in self.store.list(f"{blob_names.folder(data.tenant_id, data.job_id, 1)}/"):
            if uri.startswith(begins):
                return uri
        return None

    async def _stored(self, data: AudioFetch, path: Path, probe: Probe) -> Blob | None:
        """The recording as the job's original, which never changes; None if that is another one already."""
        name = blob_names.original(data.tenant_id, data.job_id, probe.extension.lstrip("."))
        if self.store.uri(name) == data.audio_uri:
            there = await self.store.stat(data.audio_uri)
            if there is not None:
                return there
        await self.intended((data.tenant_id, data.job_id), self.store.uri(name))
        digest = hashlib.sha256()
        blob = await self.store.put(name, _pieces(path, digest.update), probe.content_type, once=True)
        return blob if blob.sha256 == digest.hexdigest() else None

    def as_file(self, data: AudioFetch) -> contextlib.AbstractAsyncContextManager[Path]:
        """The recording as a file that nobody else changes, for as long as the context lasts. Raises as `fetch` does,
        and OSError where our own disk fails.
        """
        scheme, _ = _parts(data.audio_uri)
        if scheme in ("https", "http"):
            return self._downloaded(data.audio_uri)
        ours = self._own_names(data.audio_uri)
        if ours:
            return self._ours(data, ours)
        if scheme == "file":
            return self._local(data.audio_uri)
        raise RefusedLocation(f"audio_uri: {self._not_read(scheme)}")

    def _not_read(self, scheme: str) -> str:
        base = self._prefix("")
        if scheme == "s3" and base.startswith("s3://"):
            return f"of s3:// only {base} is read; put the recording there, or give a signed https:// URL of it"
        return f"{scheme}:// is not read here; use https://, file:// or this installation's storage"

    def _prefix(self, folder: str) -> str:
        """What the URIs of everything in a folder of our storage begin with."""
        return self.store.uri(f"{folder}x")[:-1]

    def _own_names(self, uri: str) -> list[str]:
        """What the URI may name in our storage, the likeliest first; nothing if it lies elsewhere.

        A key in S3 is written into a URI as it is, or percent-encoded, or as S3's own notifications have it (a plus
        for a space); a path in `file://` percent-encoded, or as it is.
        """
        (scheme, path), (own_scheme, base) = _parts(uri), _parts(self._prefix(""))
        if scheme != own_scheme:
            return []
        spellings = [path, unquote(path), unquote_plus(path)]
        if scheme == "file":
            spellings, base = [unquote(path), path], unquote(base)
        return [text.removeprefix(base) for text in dict.fromkeys(spellings) if text.startswith(base)]

    @contextlib.asynccontextmanager
    async def _ours(self, data: AudioFetch, ours: list[str]) -> AsyncIterator[Path]:
        mine = [name for name in ours if name.startswith(f"{data.tenant_id}/") and rules.is_name(name)]
        if not mine:
            raise RefusedLocation("audio_uri: this part of the storage is not the tenant's")
        async with contextlib.AsyncExitStack() as stack:
            for name in mine:
                with contextlib.suppress(NotFound):
                    path = await stack.enter_async_context(self.store.local_path(self.store.uri(name)))
                    break
            else:
                raise RefusedLocation("audio_uri: there is no such object in the storage")
            yield path

    @contextlib.asynccontextmanager
    async def _local(self, uri: str) -> AsyncIterator[Path]:
        """A copy, so that what was checked is what is probed and stored, whatever becomes of the file meanwhile."""
        with tempfile.TemporaryDirectory(prefix="concord-") as folder:
            path = Path(folder) / "audio"
            file = await self._threads.run(self._files.open, uri, undo=os.close)
            try:
                await self._copy(file, path)
            finally:
                os.close(file)
            yield path

    async def _copy(self, file: int, path: Path) -> None:
        left = self.max_bytes
        with path.open("wb") as copy:
            while piece := await self._threads.run(_read, file):
                left -= len(piece)
                if left < 0:
                    raise RefusedMedia(f"the file has more than {self.max_bytes} bytes")
                await self._threads.run(copy.write, piece)

    @contextlib.asynccontextmanager
    async def _downloaded(self, uri: str) -> AsyncIterator[Path]:
        with tempfile.TemporaryDirectory(prefix="concord-") as folder:
            path = Path(folder) / "audio"
            await self._downloader.save(uri, path)
            yield path


def host_of_uri(uri: str) -> str:
    """Who would be asked for this audio, for shares; empty for our own storage and files."""
    if _parts(uri)[0] not in ("https", "http"):
        return ""
    try:
        return host_of(web_url(uri))
    except RefusedLocation:
        return ""


def _parts(uri: str) -> tuple[str, str]:
    """The scheme in lower case, and what follows it; in file:// without the name of this host."""
    scheme, _, rest = uri.partition("://")
    if (scheme := scheme.lower()) == "file":
        host, slash, path = rest.partition("/")
        rest = slash + path if host.lower() in ("", "localhost") else rest
    return scheme, rest


def _read(file: int) -> bytes:
    try:
        return os.read(file, _PIECE)
    except OSError as exc:
        raise Transient(f"audio_uri: the file cannot be read ({exc.strerror})") from exc


@contextlib.contextmanager
def _our_disk() -> Iterator[None]:
    """What the system refuses here is no fault of the recording or its host: a full disk, no descriptors left."""
    try:
        yield
    except OSError as exc:
        raise Unavailable(f"no recording can be kept in {tempfile.gettempdir()} now: {exc}") from exc


async def _pieces(path: Path, seen: Callable[[bytes], None]) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            await asyncio.to_thread(seen, piece)
            yield piece
