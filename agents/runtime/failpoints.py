"""Named points between two durable steps at which tests kill the process, as a power cut would.

`CONCORD_FAILPOINT=name[:n]` arms one: the process ends when it passes the point for the n-th time, 1 by default. The
variable is for tests alone, so `concord worker --help` does not mention it.
"""

from __future__ import annotations

import os

#: Every failpoint of a recording's way, so that a test can iterate over all of them.
POINTS = (
    "intake.stored",
    "intake.before-commit",
    "intake.after-commit",
    "transcribe.uploaded",
    "transcribe.claimed",
    "transcribe.submitted",
    "transcribe.stored",
    "transcribe.before-commit",
    "transcribe.after-commit",
    "reconcile.judged",
    "reconcile.stored",
    "reconcile.before-commit",
    "reconcile.after-commit",
    "persist.half-stored",
    "persist.stored",
    "persist.before-commit",
    "persist.after-commit",
    "relay.claimed",
    "relay.sent",
    "relay.published",
    "relay.refused",
    "relay.job-ended",
    "relay.set-aside",
    "webhooks.claimed",
    "webhooks.sent",
    "webhooks.recorded",
)

#: Those that only requests over HTTP pass.
REQUESTS = (
    "upload.received",
    "upload.held",
    "upload.stored",
    "upload.committed",
    "reprocess.committed",
    "cancel.committed",
)

#: Those of fetching a conversation.
CONVERSATION_POINTS = ("fetch.text", "fetch.audio", "fetch.stored", "fetch.before-commit", "fetch.after-commit")

#: Those of edits, which workers pass that serve HTTP.
EDIT_POINTS = ("edit.intended", "edit.stored", "edit.before-commit", "edit.after-commit")
#: Those of making vectors.
EMBEDDING_POINTS = ("embed.answered", "embed.kept", "embed.announced")
#: Those of a deletion, which no recording passes.
DELETION_POINTS = ("delete.rows", "delete.half", "delete.blobs", "delete.copies", "delete.kept")
#: Those of a schedule's page.
SCHEDULE_POINTS = ("schedule.claimed", "schedule.asked")

#: Those of a language model's answers, and of what is made of transcripts.
ENRICHMENT_POINTS = ("texts.answered", "texts.stored", "document.stored", "summary.stored")
#: Those of reports and their mails.
MAIL_POINTS = ("report.stored", "mail.claimed", "mail.sending", "mail.sent", "mail.recorded", "mail.stored")

_armed: dict[str, int] = {}


def arm(text: str) -> None:
    """Arm the failpoint `name[:n]`; an empty text arms none. Raises ValueError for a name that does not exist."""
    if not text:
        return
    name, _, times = text.partition(":")
    beside = (*CONVERSATION_POINTS, *EMBEDDING_POINTS, *SCHEDULE_POINTS, *ENRICHMENT_POINTS, *MAIL_POINTS)
    every = (*POINTS, *REQUESTS, *EDIT_POINTS, *DELETION_POINTS, *beside)
    if name not in every:
        raise ValueError(f"there is no failpoint {name!r}; the names are {', '.join(every)}")
    _armed[name] = int(times or 1)


def passing(name: str) -> None:
    """Exit with status 137, without any clean-up, if this failpoint is armed."""
    if name not in _armed:
        return
    _armed[name] -= 1
    if _armed[name] <= 0:
        os._exit(137)
