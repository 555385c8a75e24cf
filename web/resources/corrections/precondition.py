"""Entity tags of transcripts, and the precondition that an edit must carry (RFC 9110, RFC 6585)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from aiohttp import web

from web.resources.jobs.transcripts import etag

if TYPE_CHECKING:
    from schemas.jobs.rows import Transcript

_TAG: Final = re.compile(r'(?:W/)?"[^"]*"')


def check_unchanged(transcript: Transcript, if_match: str | None) -> None:
    """Check that the caller has seen the version that the transcript has now. `*` is any version.

    Raises:
        HTTPPreconditionRequired: there is no `If-Match`.
        HTTPPreconditionFailed: it names other versions.
    """
    current = etag(transcript.run, transcript.version)
    if if_match is None:
        raise web.HTTPPreconditionRequired(
            text="send the `ETag` of the transcript that you have edited as `If-Match`", headers={"ETag": current}
        )
    if if_match.strip() != "*" and current not in _TAG.findall(if_match):
        raise changed(transcript)


def changed(transcript: Transcript) -> web.HTTPPreconditionFailed:
    """The answer to an edit of an older version than this one."""
    return web.HTTPPreconditionFailed(
        text="the transcript has a newer version: get it, and make your change again",
        headers={"ETag": etag(transcript.run, transcript.version)},
    )
