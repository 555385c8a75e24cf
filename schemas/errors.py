"""Every error Concord raises, in one place, so that what is retried and what is not can be read at a glance.

ConcordError
├── SettingsError        the environment is incomplete or contradictory
├── ServerError          an embedded server did not start, or died
├── NotFound             no such job, blob or record (for this tenant)
├── InvalidInput         will never work, however often it is tried
│   ├── MalformedEvent   bytes, JSON, headers or schema
│   ├── RefusedMedia     no audio, damaged, too long, or not what its name says
│   └── RefusedLocation  a URI that Concord will not read
├── ProviderError        a recognizer or model said no for good
├── Transient            may work later; carries how long to wait
│   └── RateLimited      the provider asked for a pause
│       └── Paused       nobody was asked: there is a pause, and it is too long to be waited for here
└── Unavailable          one of our own servers (database, broker, store) is away: waited for, never counted
    └── Misconfigured    it answers, but will not work before somebody changes the settings (a SettingsError, too)
"""

from __future__ import annotations


class ConcordError(Exception):
    """Base of everything Concord raises on purpose."""


class SettingsError(ConcordError):
    """The environment cannot be used; the message lists everything that is wrong with it."""


class ServerError(ConcordError):
    """An embedded server did not start or is gone; the message says what to look at."""


class NotFound(ConcordError):
    """There is no such thing, or it belongs to another tenant."""


class InvalidInput(ConcordError):
    """Trying again cannot help: the input itself is at fault."""


class MalformedEvent(InvalidInput):
    """A Kafka record whose bytes, JSON, headers or fields do not follow its topic's schema."""


class RefusedMedia(InvalidInput):
    """Not audio that can be transcribed: empty, damaged, cut off, silent container, or a lie about its type."""


class RefusedLocation(InvalidInput):
    """An audio URI outside what this installation may read."""


class ProviderError(ConcordError):
    """A recognizer or model refused or failed a request, finally."""


class Transient(ConcordError):
    """Failed now, may work later. Counted: after the last retry the job goes on without, or fails."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        #: Seconds the other side asked us to wait, if it did.
        self.retry_after = retry_after


class RateLimited(Transient):
    """The provider's answer was: not so fast."""


class Paused(RateLimited):
    """The call was not made: all workers pause, for longer than whoever wanted to call should wait."""


class Unavailable(ConcordError):
    """One of our own servers does not answer. Work waits for it and is not charged an attempt."""


class Misconfigured(SettingsError, Unavailable):
    """The store is there but will not have us, until an operator mends a key, a permission or a bucket.

    Both: who starts says so and stops (`SettingsError`), who works waits and loses nothing (`Unavailable`).
    """
