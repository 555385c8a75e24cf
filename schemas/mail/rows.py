"""A mail's row: the ledger of what was handed to the mail server, and what it said. No I/O.

    waiting ──before the content is sent──> sending ──the server's answer──> sent, waiting or refused
                                               └── no answer ──> in_doubt ──a person says so──> waiting

What is written before the content is sent decides: a mail that is found in `sending`, and is not this worker's, may
have been taken by the server, so it is in doubt and not sent again by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal

MailState = Literal["waiting", "sending", "sent", "refused", "in_doubt"]

#: States from which a mail goes on only when a person says so.
ENDED: Final = frozenset({"sent", "refused", "in_doubt"})

#: Characters that are kept of a server's answer.
ANSWER_CHARS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """The mail about one run of a job."""

    tenant_id: str
    job_id: str
    run: int
    #: The version of the transcript on which the attached report is.
    transcript_version: int
    #: How often the enrichment `mail` was begun of that version.
    generation: int = 1
    #: The Message-ID without its angle brackets; the same for each attempt.
    message_id: str
    state: MailState = "waiting"
    #: Addresses for which the server has neither taken nor refused the mail.
    waiting: list[str] = field(default_factory=list, repr=False)
    accepted: list[str] = field(default_factory=list, repr=False)
    #: By address, why the server refuses it for good.
    refused: dict[str, Any] = field(default_factory=dict, repr=False)
    #: How often the server was called, and the fencing token of the newest call.
    attempts: int = 0
    #: The server's last answer, or why there is none.
    answer: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of one call of the mail server."""

    #: Addresses for which it has taken the mail.
    accepted: tuple[str, ...] = ()
    #: By address, why it refuses the mail for good.
    refused: Mapping[str, str] = field(default_factory=dict)
    #: The answer that decided, or the error in its place.
    answer: str = ""
    #: Whether the content was sent and no answer came.
    in_doubt: bool = False


def after(mail: Mail, attempt: Attempt) -> Mail:
    """The row after an attempt."""
    accepted = [*mail.accepted, *attempt.accepted]
    refused = {**mail.refused, **{address: why[:ANSWER_CHARS] for address, why in attempt.refused.items()}}
    waiting = [address for address in mail.waiting if address not in accepted and address not in refused]
    if attempt.in_doubt:
        state: MailState = "in_doubt"
    elif waiting:
        state = "waiting"
    else:
        state = "sent" if accepted else "refused"
    answer = attempt.answer[:ANSWER_CHARS]
    return replace(mail, state=state, waiting=waiting, accepted=accepted, refused=refused, answer=answer)


def resent(mail: Mail, recipients: Iterable[str]) -> Mail:
    """The row that a person has sent again: to those for whom the server has not taken it, else to all."""
    left = mail.waiting or [address for address in recipients if address not in mail.accepted] or list(recipients)
    left = left or [*mail.accepted, *mail.refused]  # whom a person named
    accepted = [address for address in mail.accepted if address not in left]
    return replace(mail, state="waiting", waiting=left, accepted=accepted, refused={}, answer=None)
