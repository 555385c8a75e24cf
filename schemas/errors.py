"""Every error Concord raises, in one place, so that what is retried and what is not can be read at a glance.

ConcordError
├── SettingsError        the environment is incomplete or contradictory
├── ServerError          an embedded server did not start, or died
├── NotFound             no such job, blob or record (for this tenant)
├── Ambiguous            several tenants have a job of this name
├── InvalidInput         will never work, however often it is tried
│   ├── MalformedEvent   bytes, JSON, headers or schema
│   │   └── TooLarge     more bytes than Kafka or a store takes
│   ├── RefusedMedia     no audio, damaged, too long, or not what its name says
│   ├── RefusedLocation  a URI that Concord will not read
│   ├── NotDelivered     a URI whose host did not deliver, for as long as it was tried
│   ├── UnsupportedOption  an option that no configured recognizer can honour
│   ├── StorageRefused   a value that PostgreSQL does not store
│   └── Skipped          an operator had it passed over
├── ProviderError        a recognizer or model said no for good
├── Cancelled            somebody who may has decided that the job is not wanted any more
├── PublishRefused       Kafka refuses an event of ours for good
├── Transient            may work later; carries how long to wait
│   └── NotAccepted      and it is certain that the provider has taken nothing on
│       └── RateLimited  the provider asked for a pause
│           └── Paused   nobody was asked: there is a pause, and it is too long to be waited for here
├── InDoubt              nobody can tell whether the provider took a request on: it is not asked again
└── Unavailable          one of our own servers (database, broker, store) is away: waited for, never counted
    ├── Contended        others are at the same rows, or a batch took too long: what needs other rows may go on
    └── Misconfigured    it answers, but will not work before somebody changes the settings (a SettingsError, too)

`code` is what programs read in `job.failed`. Once published, a code keeps its meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from schemas.texts import readable


class ConcordError(Exception):
    """Base of everything Concord raises on purpose. Its text can be stored and published, whatever it was made from."""

    #: The `code` of a job that fails with this.
    code: ClassVar[str] = "internal_error"

    def __str__(self) -> str:
        return readable(super().__str__())


class SettingsError(ConcordError):
    """The environment cannot be used; the message lists everything that is wrong with it."""


class ServerError(ConcordError):
    """An embedded server did not start or is gone; the message says what to look at."""


class NotFound(ConcordError):
    """There is no such thing, or it belongs to another tenant."""

    code = "not_found"


class Ambiguous(ConcordError):
    """A job was named without its tenant, and several tenants have one of this name."""

    code = "ambiguous"

    def __init__(self, name: str, tenants: Sequence[str], how: str) -> None:
        super().__init__(f"{len(tenants)} tenants have a job of this name, {name!r}: say which of them by {how}")
        #: Those that were found, in order.
        self.tenants = tuple(tenants)


class InvalidInput(ConcordError):
    """Trying again cannot help: the input itself is at fault."""

    code = "invalid_input"


class MalformedEvent(InvalidInput):
    """A Kafka record whose bytes, JSON, headers or fields do not follow its topic's schema."""

    code = "malformed_event"


class RefusedMedia(InvalidInput):
    """Not audio that can be transcribed: empty, damaged, cut off, silent container, or a lie about its type."""

    code = "refused_media"


class RefusedLocation(InvalidInput):
    """An audio URI outside what this installation may read."""

    code = "refused_location"


class NotDelivered(InvalidInput):
    """The audio's host did not deliver it, however often it was asked over minutes."""

    code = "retries_exhausted"


class UnsupportedOption(InvalidInput):
    """The upload asks for something that cannot be done for it, and must not be left out in silence."""

    code = "unsupported_option"


class TooLarge(MalformedEvent):
    """More bytes than may be published or stored."""

    code = "too_large"


class StorageRefused(InvalidInput):
    """PostgreSQL answers, and refuses this value for good: text, number or row that it does not store."""

    code = "storage_refused"


class Skipped(InvalidInput):
    """An operator had the record passed over (`concord skip`)."""

    code = "skipped"


class ProviderError(ConcordError):
    """A recognizer or model refused or failed a request, finally."""

    code = "provider_refused"


class Cancelled(ConcordError):
    """Somebody who may decides that the job is not wanted any more."""

    code = "cancelled"


class PublishRefused(ConcordError):
    """Kafka answers, and refuses an event of ours for good."""

    code = "publish_refused"


class Transient(ConcordError):
    """Failed now, may work later. Counted: after the last retry the job goes on without, or fails."""

    code = "retries_exhausted"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        #: Seconds the other side asked us to wait, if it did.
        self.retry_after = retry_after


class NotAccepted(Transient):
    """The request did not leave this machine, or was refused for now: nothing can come of it, and nothing is billed.

    Every other `Transient` leaves that open: a timeout, a lost connection, the 502 of a gateway.
    """


class RateLimited(NotAccepted):
    """The provider's answer was: not so fast."""


class Paused(RateLimited):
    """The call was not made: all workers pause, for longer than whoever wanted to call should wait."""


class InDoubt(ConcordError):
    """The provider cannot be asked, or does not say, which requests it has; the message says what stands in the way."""


class Unavailable(ConcordError):
    """One of our own servers does not answer. Work waits for it and is not charged an attempt."""


class Contended(Unavailable):
    """The database answers, but another transaction holds what this one needs: the rest of a batch goes on without."""


class Misconfigured(SettingsError, Unavailable):
    """The store is there but will not have us, until an operator mends a key, a permission or a bucket.

    Both: who starts says so and stops (`SettingsError`), who works waits and loses nothing (`Unavailable`).
    """


def _codes(kind: type[ConcordError]) -> set[str]:
    return {kind.code}.union(*map(_codes, kind.__subclasses__()))


#: The codes that `job.failed` may have: of the errors above, and "stuck" for a run that nothing brings to its end.
CODES: Final = frozenset({"stuck"} | _codes(ConcordError))
