"""Where results rest: what Concord asks of a database and of a blob store. Implementations stand beside this file,
doubles too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from schemas.events.job import JobStatus
from schemas.ids import Key
from schemas.jobs.outcome import Step
from schemas.jobs.rows import Adjudication, File, Job, ProviderRequest, Status, Transcript, Usage
from schemas.jobs.status import StatusVersion
from schemas.jobs.transitions import Written


@dataclass(frozen=True, slots=True)
class Blob:
    """A stored object, as the store confirmed it."""

    uri: str
    size_bytes: int
    #: Hex digest of the content.
    sha256: str
    content_type: str


class Store(Protocol):
    """Blobs by name (`tenant/job/raw_transcript.json`); a blob is found by the URI that `put` and `uri` give.

    Names are segments divided by `/`, none empty or beginning with a dot (so no `..`, no absolute path), without
    backslashes and control characters, at most 255 bytes each and 900 in all (`blobs.check_name`). One blob should not
    lie inside another (`a` and `a/b`): S3 takes that, a folder refuses it.

    Raises `Unavailable` when the store cannot be reached or is full, its subclass `Misconfigured` (also a
    `SettingsError`) when only an operator can mend that, `NotFound` for a blob that is not there, `InvalidInput` for a
    name or URI that is not this store's. An error that `content` raises passes through as it is.
    """

    async def put(
        self, name: str, content: bytes | AsyncIterator[bytes], content_type: str, *, once: bool = False
    ) -> Blob:
        """Store durably and atomically: a reader sees the whole blob or none. Writing again replaces it.

        With `once` a blob that is there already stays and is what is returned; its sha256 tells whether it is this
        one. Of several writers at once, one wins. Pieces may have any size; memory stays bounded. Cancelled or failed,
        it leaves what was there before, or the whole blob.
        """

    async def get(self, uri: str) -> bytes:
        """The whole blob; for small ones (JSON)."""

    def stream(self, uri: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The blob in pieces, optionally only bytes `start` to `end` (exclusive); what lies past its end is left out.

        All pieces are of one version, also if the blob is replaced meanwhile. Raises when a piece is asked for.
        """

    async def stat(self, uri: str) -> Blob | None:
        """What is stored there, or None. For a file that another program put there it may have to read it all."""

    def local_path(self, uri: str) -> AbstractAsyncContextManager[Path]:
        """The blob as a file for as long as the context lasts; the file must not be changed.

        Of a blob in a folder it is the blob itself: who replaces or deletes that meanwhile does so to the reader, too.
        """

    async def presigned_url(self, uri: str, expires_s: int) -> str | None:
        """A URL that gives read access for `expires_s` seconds (at most a week), or None where there is no such
        thing.
        """

    async def delete(self, uri: str) -> None:
        """Remove it; no error if it is gone already."""

    def list(self, prefix: str) -> AsyncIterator[str]:
        """URIs of all blobs whose name begins with `prefix`, in no order; deleting them meanwhile is fine.

        The prefix is empty or ends in `/`: `acme` would be `acme2`'s, too, and is refused.
        """

    def uri(self, name: str) -> str:
        """The URI a blob of this name has or would have."""

    def name(self, uri: str) -> str:
        """The name behind a URI of this store; raises InvalidInput for any other URI."""

    async def check(self) -> Sequence[str]:
        """Write, read and delete a probe in the ways in which work does; what the server lacks and is done without.

        Raises with what is wrong and what to do about it.
        """

    async def close(self) -> None:
        """Release connections and threads; the store is of no use afterwards. Safe to call twice."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to submit one provider request, until it runs out."""

    request: ProviderRequest
    #: The provider has requests that no row knows; see `Database.strays`.
    strays: bool = False


@dataclass(frozen=True, slots=True)
class Stray:
    """A request that a provider has and no row knows; as `asr.protocols.Listed`."""

    provider: str
    provider_id: str
    created: datetime | None
    urls: tuple[str, ...] | None
    marker: str | None


@dataclass(frozen=True, slots=True)
class Traffic:
    """What goes on at a recognizer that others provide, over all workers."""

    #: Requests that hold a place, and that wait for one.
    under_way: int = 0
    queued: int = 0
    #: Calls that failed since the last one that did not; those that failed within a pause are not counted.
    failures: int = 0
    #: Until then nobody calls.
    paused_until: datetime | None = None
    #: Requests that a person has to decide about.
    parked: int = 0


@dataclass(frozen=True, slots=True)
class Overdue:
    """Events of one topic and shard that are due for a while and not published."""

    shard: int
    topic: str
    rows: int
    oldest_s: float
    #: What the shard's relay says about it.
    error: str | None
    #: Whether the reason lies in this topic or these events, and others are published.
    apart: bool

    def __str__(self) -> str:
        reason = self.error or "no relay says why: does one run, and does it keep up?"
        return f"{self.rows} due for up to {self.oldest_s:.0f} s: {reason}"


class Database(Protocol):
    """The truth about jobs. Raises `Unavailable` when it cannot be reached; nothing is then written, or all of it
    is.
    """

    async def commit(self, steps: Sequence[Step]) -> list[Written | None]:
        """All steps in one transaction; None for a step whose event was committed before."""

    async def job(self, tenant_id: str, job_id: str) -> Job | None:
        """The job's row."""

    async def metadata(self, tenant_id: str, job_id: str) -> dict[str, Any]:
        """What the job's producer sent along. Apart from the row, which everybody reads: it may be 850 kB."""

    async def named(self, tenant_id: str, job_id: str, reference: str | None) -> list[Job]:
        """The tenant's jobs that have this id or this reference: two, if they are two."""

    async def requests(self, tenant_id: str, job_id: str, run: int) -> list[ProviderRequest]:
        """The run's provider requests, by name of the provider."""

    async def claim(
        self, tenant_id: str, job_id: str, run: int, provider: str, seconds: float
    ) -> Claim | ProviderRequest | None:
        """Commit the intention to submit a request that waits. Its row instead if it was claimed before, or is past
        that; None if unknown.
        """

    async def expedite_poll(self, provider: str, provider_id: str) -> bool:
        """Make the next look at a submitted request due now; False if none waits: it is unknown, has ended, or is just
        being looked at.
        """

    async def expedite_job(self, tenant_id: str, job_id: str, provider: str) -> bool:
        """The same for a request of any state."""

    async def doubtful(self, limit: int) -> list[ProviderRequest]:
        """The newest requests that are parked, or that the last run which had them left behind."""

    async def strays(self, provider: str) -> list[Stray]:
        """Requests that the provider has and no row knows: made between a backup and the failure after which it was
        restored, or by others. They stay until a row has their id, or a person says whose they are not.
        """

    async def keep_strays(self, strays: Sequence[Stray]) -> list[Stray]:
        """Remember those of these requests that no row knows, and return them."""

    async def forget_stray(self, provider: str, provider_id: str) -> bool:
        """It is none of ours; False if there is no such stray."""

    async def acquire_slot(self, tenant_id: str, job_id: str, run: int, provider: str, slots: int) -> bool:
        """Whether the request may be among the at most `slots` of its provider that are under way.

        If not, it is queued: `admit` gives it a place later. One that has a place keeps it until the request ends.
        """

    async def grant_slots(self, provider: str, slots: int | None) -> Traffic:
        """Give free places to those who queue, and make their events due: the most urgent first, among those tenants in
        turn, of each tenant the oldest. A share of the places is kept free of bulk (`sinks.ports.provider_slots`).
        """

    async def waiting_uploads(self) -> dict[str, int]:
        """Tenants whose uploads wait for a place to be fetched (`Job.queued_at`), with the least urgency number of
        them.
        """

    async def admit_uploads(self, held: Mapping[str, int], free: int) -> list[Key]:
        """Give places of a process to uploads that wait, and make their events due: the most urgent first, among those
        tenants in turn, of each tenant the oldest. `held` is how many the tenants have there already
        (`sinks.ports.provider_slots`).
        """

    async def register_worker(self, role: str, holder: str, seconds: float) -> int:
        """This process has a role for so many seconds; how many processes have it."""

    async def reserve_calls(self, provider: str, calls: int, interval_s: float) -> float:
        """Reserve moments for that many calls, `interval_s` apart; seconds until the first. None is within a pause."""

    async def space_calls(self, provider: str, calls: int, interval_s: float, within_s: float) -> float | None:
        """Stand in line for calls that are about to be made, `interval_s` apart: seconds until the first, None (and
        nothing taken) if that is more than `within_s`. Who came late for a reserved moment is held apart from others.
        """

    async def provider_failed(self, provider: str, retry_after: float | None) -> None:
        """A call failed. All pause: as long as the provider asks for, and after several failures in a row for a time
        that doubles up to a minute, if that is longer (`sinks.ports.provider_slots`).
        """

    async def provider_worked(self, provider: str) -> None:
        """A call was answered: earlier failures count no more."""

    async def lease(self, key: str, holder: str, seconds: float) -> bool:
        """Take or renew the exclusive right to a piece of work; False while another holds it."""

    async def release(self, key: str, holder: str) -> None:
        """Give a lease back early; no error if it is lost already."""

    async def record_usage(self, rows: Sequence[Usage]) -> None:
        """Keep what requests used up; a row that is there already stays as it is."""

    async def adjudications(
        self, tenant_id: str, job_id: str, run: int, questions: Sequence[str]
    ) -> list[Adjudication]:
        """What the tenant's judges have answered to these questions, and where this run had no usable answer."""

    async def keep_adjudications(self, rows: Sequence[Adjudication]) -> None:
        """Remember answers for the tenant and faults for the run. An answer is never replaced, a fault by anything."""

    async def now(self) -> datetime:
        """The clock that counts."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last job of a page: the next page begins behind it, however many jobs have come meanwhile."""

    created_at: datetime
    job_id: str


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a tenant's jobs, newest first, and where to go on (None at the end)."""

    jobs: list[JobStatus]
    following: Cursor | None


#: Jobs of one name that are looked for at most, each of another tenant.
MANY = 20


class Reads(Protocol):
    """What people may ask of the database. `tenant` is whose it is, and only that is seen; None, where it may be, is an
    operator, who sees all.

    What belongs to another tenant is answered exactly like what does not exist. Raises `Unavailable` when the database
    cannot be reached.
    """

    async def job(self, tenant: str, job_id: str) -> Job | None:
        """The tenant's job with this id."""

    async def status_version(self, tenant: str, job_id: str) -> StatusVersion | None:
        """How new the job's row is, read after this was called. For the service itself: asked about any tenant's job,
        it tells nothing of it.
        """

    async def find(self, tenant: str | None, name: str, limit: int = MANY) -> list[Job]:
        """The jobs that are meant by a name, which is an id (a UUID in any spelling) or a reference: of each tenant at
        most one, an id before a reference. In order of tenant, at most `limit`.
        """

    async def jobs(
        self, tenant: str, *, status: Status | None = None, limit: int = 50, before: Cursor | None = None
    ) -> Page:
        """At most `limit` of a tenant's jobs, newest first, those behind `before` if it is given."""

    async def transcript(self, tenant: str, job_id: str, run: int | None = None) -> Transcript | None:
        """The transcript of a run; by default of the newest run that has one."""

    async def files(self, tenant: str, job_id: str) -> list[File]:
        """Every blob of the job, by run and kind."""

    async def tenants(self, limit: int = 1000) -> list[str]:
        """For operators: who has jobs, in order, at most `limit` of them."""

    async def counts(self) -> dict[str, int]:
        """For operators: how many jobs have not ended, by status; zeros included."""
