"""Fetches a job's recording from its `audio_uri`, probes it, and stores it.

Decides which URIs a tenant may name: none may give access to private files or networks, or to other tenants' blobs.
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

from agents.media.decoding.probe import Probe
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

#: Bytes that are read at once.
_PORTION = 1 << 18


@dataclass(frozen=True, slots=True)
class Fetched:
    """A recording in our storage that was probed successfully."""

    blob: Blob
    duration_ms: int
    content_type: str
    #: See `agents.media.decoding.probe.Probe.notes`.
    notes: tuple[str, ...] = ()


#: Called with a blob's job and URI before the blob is written.
Intended = Callable[[Key, str], Awaitable[None]]


async def _ignore(_key: Key, _uri: str) -> None:
    """Does nothing: for installations without a sweep of orphan blobs."""


@dataclass
class AudioSource:
    """Fetches recordings from permitted URIs, and stores each as its job's original."""

    store: Store
    probe_pool: ProbePool
    #: Folders from which `file://` may be read.
    roots: tuple[Path, ...]
    #: Hosts, or host:port, that may be private or use plain HTTP.
    allow_hosts: frozenset[str] = frozenset()
    max_bytes: int = 2 << 30
    #: Folders of this installation, which `file://` never reads.
    own: tuple[Path, ...] = ()
    #: Called before each blob is written; see `sinks.ports.upkeep.blob_intents`.
    intended: Intended = _ignore
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
        """Fetch, probe and store the recording at `data.audio_uri`.

        With `again`, an earlier attempt may have stored it already; then the stored one is probed.

        Raises:
            RefusedLocation: The URI may not be read.
            RefusedMedia: It names no recording that can be transcribed.
            Transient: A host does not deliver now.
            Unavailable: Our own disk or store does not accept the recording now.
        """
        stored = await self._stored_earlier(data) if again else None
        if stored is not None:
            data = data.model_copy(update={"audio_uri": stored})
        with _errors_of_disk():
            async with self.as_file(data) as path:
                fetched = await self.keep(data, path, self.intended)
        # Another worker has stored other content from the same URI first: the stored recording counts.
        return await self.fetch(data, again=True) if fetched is None else fetched

    async def keep(self, data: AudioFetch, path: Path, intended: Intended) -> Fetched | None:
        """Probe and store a file as the job's original; None if other content is stored already.

        `intended` is called before the blob is written. Raises as `fetch` does, but OSError if our own disk fails.
        """
        probe: Probe = await self.probe_pool.probe(path, data.filename, data.content_type, tenant=data.tenant_id)
        blob = await self._stored(data, path, probe, intended)
        return None if blob is None else Fetched(blob, probe.duration_ms, probe.content_type, probe.notes)

    async def _stored_earlier(self, data: AudioFetch) -> str | None:
        """The URI of the job's original, if it is stored."""
        name = blob_names.original(data.tenant_id, data.job_id, "", data.run, restricted=data.restricted)
        prefix = self._prefix(name)
        async for uri in self.store.list(f"{blob_names.folder(data.tenant_id, data.job_id, data.run)}/"):
            if uri.startswith(prefix):
                return uri
        return None

    async def _stored(self, data: AudioFetch, path: Path, probe: Probe, intended: Intended) -> Blob | None:
        """Store the recording as the job's original, which never changes. None if other content is stored already."""
        extension = probe.extension.lstrip(".")
        name = blob_names.original(data.tenant_id, data.job_id, extension, data.run, restricted=data.restricted)
        if self.store.uri(name) == data.audio_uri:
            existing = await self.store.stat(data.audio_uri)
            if existing is not None:
                return existing
        await intended((data.tenant_id, data.job_id), self.store.uri(name))
        digest = hashlib.sha256()
        blob = await self.store.put(name, _portions(path, digest.update), probe.content_type, once=True)
        return blob if blob.sha256 == digest.hexdigest() else None

    def as_file(self, data: AudioFetch) -> contextlib.AbstractAsyncContextManager[Path]:
        """The recording as a private file that exists while the context lasts.

        Raises as `fetch` does, but OSError if our own disk fails.
        """
        scheme, _ = _parts(data.audio_uri)
        if scheme in ("https", "http"):
            return self._downloaded(data.audio_uri)
        names = self._own_names(data.audio_uri)
        if names:
            return self._blob(data, names)
        if scheme == "file":
            return self._copied(data.audio_uri)
        raise RefusedLocation(f"audio_uri: {self._advice(scheme)}")

    def _advice(self, scheme: str) -> str:
        base = self._prefix("")
        if scheme == "s3" and base.startswith("s3://"):
            return f"of s3:// only {base} is read; put the recording there, or give a signed https:// URL of it"
        return f"{scheme}:// is not read here; use https://, file:// or this installation's storage"

    def _prefix(self, folder: str) -> str:
        """The beginning of the URIs of all blobs in a folder of our storage."""
        return self.store.uri(f"{folder}x")[:-1]

    def _own_names(self, uri: str) -> list[str]:
        """The blob names that the URI may mean, the most probable first; none if it is outside our storage.

        A key in an `s3://` URI is literal, percent-encoded, or encoded as in S3's notifications (a plus for a space).
        A path in a `file://` URI is percent-encoded, or literal.
        """
        (scheme, path), (own_scheme, base) = _parts(uri), _parts(self._prefix(""))
        if scheme != own_scheme:
            return []
        spellings = [path, unquote(path), unquote_plus(path)]
        if scheme == "file":
            spellings, base = [unquote(path), path], unquote(base)
        return [text.removeprefix(base) for text in dict.fromkeys(spellings) if text.startswith(base)]

    @contextlib.asynccontextmanager
    async def _blob(self, data: AudioFetch, names: list[str]) -> AsyncIterator[Path]:
        """The first of these blobs that exists, as a file."""
        permitted = [name for name in names if name.startswith(f"{data.tenant_id}/") and rules.is_name(name)]
        if not permitted:
            raise RefusedLocation("audio_uri: this part of the storage is not the tenant's")
        async with contextlib.AsyncExitStack() as stack:
            for name in permitted:
                with contextlib.suppress(NotFound):
                    path = await stack.enter_async_context(self.store.local_path(self.store.uri(name)))
                    break
            else:
                raise RefusedLocation("audio_uri: there is no such object in the storage")
            yield path

    @contextlib.asynccontextmanager
    async def _copied(self, uri: str) -> AsyncIterator[Path]:
        """A copy of a `file://` file, so that later changes of the file affect neither the probe nor the storage."""
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
            while portion := await self._threads.run(_read, file):
                left -= len(portion)
                if left < 0:
                    raise RefusedMedia(f"the file has more than {self.max_bytes} bytes")
                await self._threads.run(copy.write, portion)

    @contextlib.asynccontextmanager
    async def _downloaded(self, uri: str) -> AsyncIterator[Path]:
        with tempfile.TemporaryDirectory(prefix="concord-") as folder:
            path = Path(folder) / "audio"
            await self._downloader.save(uri, path)
            yield path


def host_of_uri(uri: str) -> str:
    """The host that serves this audio, for fair sharing of fetch slots; empty for our own storage and files."""
    if _parts(uri)[0] not in ("https", "http"):
        return ""
    try:
        return host_of(web_url(uri))
    except RefusedLocation:
        return ""


def _parts(uri: str) -> tuple[str, str]:
    """The scheme in lower case, and the text after `://`; for `file` without the host `localhost`."""
    scheme, _, rest = uri.partition("://")
    if (scheme := scheme.lower()) == "file":
        host, slash, path = rest.partition("/")
        rest = slash + path if host.lower() in ("", "localhost") else rest
    return scheme, rest


def _read(file: int) -> bytes:
    try:
        return os.read(file, _PORTION)
    except OSError as exc:
        raise Transient(f"audio_uri: the file cannot be read ({exc.strerror})") from exc


@contextlib.contextmanager
def _errors_of_disk() -> Iterator[None]:
    """Raises `Unavailable` for errors of this machine, such as a full disk: neither recording nor host are at fault."""
    try:
        yield
    except OSError as exc:
        raise Unavailable(f"no recording can be kept in {tempfile.gettempdir()} now: {exc}") from exc


async def _portions(path: Path, update: Callable[[bytes], None]) -> AsyncIterator[bytes]:
    """The file's bytes; `update` is called with each portion."""
    with path.open("rb") as file:
        while portion := await asyncio.to_thread(file.read, _PORTION):
            await asyncio.to_thread(update, portion)
            yield portion
