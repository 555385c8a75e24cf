"""The port of a blob store: bytes by name, such as recordings and transcripts in a folder or in a bucket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from schemas.jobs.rows import File, OfRun, run_fields


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored object, as the store confirmed it."""

    uri: str
    size_bytes: int
    #: Hex digest of the content.
    sha256: str
    content_type: str


def file_of(owner: OfRun, kind: str, blob: Blob) -> File:
    """The row of a run's blob."""
    return File(**run_fields(owner), kind=kind, **asdict(blob))


class Store(Protocol):
    """Blobs by name (`tenant/job/raw_transcript.json`); a blob is found by the URI that `put` and `uri` return.

    Names are segments divided by `/`, none empty or beginning with a dot (so no `..`, no absolute path), without
    backslashes and control characters, at most 255 bytes each and 900 in all (`sinks.blobs.rules.check_name`). One blob
    should not lie inside another (`a` and `a/b`): S3 takes that, a folder refuses it.

    Raises:
        Unavailable: the store cannot be reached or is full.
        Misconfigured: the same (a subclass, and also a `SettingsError`), where only an operator can change that.
        NotFound: there is no such blob.
        InvalidInput: the name or URI is not one of this store's.
    An error that `content` raises passes through unchanged.
    """

    async def put(
        self, name: str, content: bytes | AsyncIterator[bytes], content_type: str, *, once: bool = False
    ) -> Blob:
        """Store durably and atomically: a reader sees the whole blob or none. Writing again replaces it.

        With `once` a blob that exists already stays and is what is returned; its sha256 tells whether the content is
        the same. Of several writers at the same time, one wins. Pieces may have any size; memory stays bounded. A put
        that is cancelled or fails leaves what was there before, or the whole blob.
        """

    async def get(self, uri: str) -> bytes:
        """The whole blob; for small ones (JSON)."""

    def stream(self, uri: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The blob in pieces, optionally only bytes `start` to `end` (exclusive), cut at the blob's end.

        All pieces are of one version, also if the blob is replaced meanwhile. Errors are raised when a piece is asked
        for, not by the call.
        """

    async def stat(self, uri: str) -> Blob | None:
        """What is stored there, or None. A file that another program put there may have to be read as a whole."""

    def local_path(self, uri: str) -> AbstractAsyncContextManager[Path]:
        """The blob as a file for as long as the context lasts; the file must not be changed.

        In a folder it is the blob itself: replacing or deleting the blob meanwhile affects the reader, too.
        """

    async def presigned_url(self, uri: str, expires_s: int) -> str | None:
        """A URL that gives read access for `expires_s` seconds (at most a week); None if the store has no such URLs."""

    async def presigned_put(self, uri: str, size: int, expires_s: int) -> tuple[str, dict[str, str]] | None:
        """A URL that takes the blob, of exactly `size` bytes, as the body of one PUT request, and the headers that this
        must have besides its length; None if the store has no such URLs.
        """

    async def begin_parts(self, uri: str, sizes: Sequence[int], expires_s: int) -> tuple[str, Sequence[str]] | None:
        """Begin to take the blob in parts of exactly these sizes (5 MiB at least, but the last): an id, and for each
        part a URL that takes it as the body of one PUT request; None if the store has no such URLs.
        """

    async def join_parts(self, uri: str, id: str, size: int) -> int:
        """Make the blob of its parts, if all `size` bytes have arrived; how many have.

        Raises Unavailable also where the parts are joined already, or removed.
        """

    async def remove_parts(self, uri: str, id: str) -> None:
        """Remove the parts of a blob that was not made of them; no error if there are none."""

    async def size(self, uri: str) -> int | None:
        """Bytes of the blob, without reading it, or None."""

    async def tidy(self) -> None:
        """Remove what processes that were killed have left half written, as far as the store can tell."""

    async def delete(self, uri: str) -> None:
        """Remove the blob; no error if it is gone already."""

    def list(self, prefix: str) -> AsyncIterator[str]:
        """URIs of all blobs whose name begins with `prefix`, in no order; deleting them meanwhile is allowed.

        The prefix is empty or ends in `/`; any other raises InvalidInput, because `acme` would also match `acme2`.
        """

    def uri(self, name: str) -> str:
        """The URI that a blob of this name has or would have."""

    def name(self, uri: str) -> str:
        """The name behind a URI of this store. Raises InvalidInput for any other URI."""

    async def check(self) -> Sequence[str]:
        """Write, read and delete a probe as the stages do; one sentence for each feature that the server lacks.

        Raises Unavailable or Misconfigured with what is wrong and what to do about it.
        """

    async def close(self) -> None:
        """Release connections and threads; the store cannot be used afterwards. Safe to call twice."""
