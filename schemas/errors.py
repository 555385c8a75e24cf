"""The exception hierarchy of Concord: which errors end a job, which are retried, and which are waited out.

ConcordError
├── SettingsError        the environment is incomplete or contradictory
├── ServerError          an embedded server did not start, or has ended
├── NotFound             no such job, blob or record (for this tenant)
├── Ambiguous            several tenants have a job with this name
├── InvalidInput         the input is at fault; a retry cannot succeed
│   ├── MalformedEvent   wrong bytes, JSON, headers or fields
│   │   └── TooLarge     more bytes than Kafka or a store accepts
│   ├── RefusedMedia     no audio, damaged, too long, or of another type than declared
│   ├── RefusedLocation  a URI that this installation does not read
│   ├── NotDelivered     a URI whose host did not deliver within the time for retries
│   ├── UnsupportedOption  an option that no configured recognizer supports
│   ├── Conflict         the state of the job, or another request, does not permit this now
│   ├── UnknownConversation  the provider of voice agents has no such conversation
│   ├── StorageRefused   a value that PostgreSQL does not store
│   └── Skipped          an operator skipped the record
├── ProviderError        a recognizer, model or mail server refused the request permanently
│   ├── BudgetExhausted  a job or a tenant has used as many tokens as it may
│   ├── MailRefused      the mail server refuses a mail for all its recipients
│   └── MailInDoubt      the mail server may have taken a mail; it is not sent again by itself
├── Cancelled            an authorized user cancelled the job
├── PublishRefused       Kafka refuses an event of Concord permanently
├── Transient            a retry may succeed; carries the delay that the server asked for
│   ├── NoAnswer         the provider is away; it may have accepted the request
│   └── NotAccepted      the provider has certainly not accepted the request
│       └── RateLimited  the provider asked for a pause
│           └── Paused   the call was not made: the pause is longer than the caller may wait
├── InDoubt              it is unknown whether the provider accepted the request; it is not repeated
└── Unavailable          the database, Kafka or the store is unreachable; waited out, never counted
    ├── Contended        another transaction holds the rows, or a batch took too long; other rows may proceed
    └── Misconfigured    the server answers, but needs other settings first (a SettingsError, too)

`code` is published in `job.failed` for programs. A published code keeps its meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from schemas.texts import readable


class ConcordError(Exception):
    """Base of all errors that Concord raises. Its text is cleaned, so that it can always be stored and published."""

    #: The `code` of a job that fails with this error.
    code: ClassVar[str] = "internal_error"

    def __str__(self) -> str:
        return readable(super().__str__())


class SettingsError(ConcordError):
    """The settings are invalid; the message lists every problem."""


class ServerError(ConcordError):
    """An embedded server did not start or has ended; the message names what to check."""


class NotFound(ConcordError):
    """The object does not exist, or belongs to another tenant."""

    code = "not_found"


class Ambiguous(ConcordError):
    """A job was named without its tenant, and several tenants have a job with this name."""

    code = "ambiguous"

    def __init__(self, name: str, tenants: Sequence[str], how: str) -> None:
        super().__init__(f"{len(tenants)} tenants have a job with this name, {name!r}: choose one of them with {how}")
        #: The tenants, sorted.
        self.tenants = tuple(tenants)


class InvalidInput(ConcordError):
    """The input is at fault; a retry cannot succeed."""

    code = "invalid_input"


class MalformedEvent(InvalidInput):
    """The bytes, JSON, headers or fields of a Kafka record do not match its topic's schema."""

    code = "malformed_event"


class RefusedMedia(InvalidInput):
    """The file cannot be transcribed: empty, damaged, truncated, without sound, or of another type than declared."""

    code = "refused_media"


class RefusedLocation(InvalidInput):
    """The audio URI is outside the locations that this installation may read."""

    code = "refused_location"


class NotDelivered(InvalidInput):
    """The host of the audio did not deliver it within the time for retries."""

    code = "retries_exhausted"


class UnsupportedOption(InvalidInput):
    """The upload requests an option that is not available; ignoring it silently would mislead the producer."""

    code = "unsupported_option"


class Conflict(InvalidInput):
    """The state of the job, or another request at the same moment, does not permit this now."""

    code = "conflict"


class UnknownConversation(InvalidInput):
    """The provider of voice agents has no conversation with this id, or shows it to another workspace only."""

    code = "not_found"


class TooLarge(MalformedEvent):
    """The value has more bytes than may be published or stored."""

    code = "too_large"


class StorageRefused(InvalidInput):
    """PostgreSQL refuses this value permanently: a text, number or row that it cannot store."""

    code = "storage_refused"


class Skipped(InvalidInput):
    """An operator skipped the record (`concord skip`)."""

    code = "skipped"


class ProviderError(ConcordError):
    """A recognizer or model refused or failed the request permanently."""

    code = "provider_refused"


class BudgetExhausted(ProviderError):
    """A job or a tenant has used as many tokens of language models as it may; the message says what raises that."""

    code = "budget_exhausted"


class MailRefused(ProviderError):
    """The mail server refuses a mail permanently for all its recipients."""

    code = "mail_refused"


class MailInDoubt(ProviderError):
    """The content of a mail was sent and no answer came: the mail server may have taken it."""

    code = "mail_in_doubt"


class Cancelled(ConcordError):
    """An authorized user cancelled the job."""

    code = "cancelled"


class PublishRefused(ConcordError):
    """Kafka refuses an event of Concord permanently."""

    code = "publish_refused"


class Transient(ConcordError):
    """A retry may succeed. Retries are counted: after the last one the run continues without the result, or fails."""

    code = "retries_exhausted"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        #: Seconds that the server asked to wait before the next attempt; None if it named none.
        self.retry_after = retry_after


class NotAccepted(Transient):
    """The request was not sent, or was refused for now: it has no effect, and nothing is billed.

    Every other `Transient` leaves that open: a timeout, a lost connection, a gateway's 502.
    """


class NoAnswer(Transient):
    """The provider does not answer, or with a server's error of its own: it is away. It may have accepted the request,
    and bill it.
    """


class RateLimited(NotAccepted):
    """The provider refused the call because of its rate limit."""


class Paused(RateLimited):
    """The call was not made: calls to the provider are paused for longer than this caller may wait."""


class InDoubt(ConcordError):
    """The provider's list of requests cannot be read, or does not identify them; the message gives the reason."""


class Unavailable(ConcordError):
    """The database, Kafka or the store does not answer. Work waits for it, which does not count as an attempt."""


class Contended(Unavailable):
    """Another transaction holds rows that this one needs; the rest of the batch proceeds without it."""


class Misconfigured(SettingsError, Unavailable):
    """The store answers, but refuses access until an operator corrects a key, a permission or a bucket.

    At its start a worker reports it and exits (`SettingsError`); a running worker waits and loses nothing
    (`Unavailable`).
    """


def _codes(kind: type[ConcordError]) -> set[str]:
    return {kind.code}.union(*map(_codes, kind.__subclasses__()))


#: The codes that `job.failed` may have: those of the errors above, and "stuck" for a run that no event continues.
CODES: Final = frozenset({"stuck"} | _codes(ConcordError))
