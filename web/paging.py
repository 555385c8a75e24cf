"""Pages of lists: opaque cursors, and the link to the next page (RFC 8288)."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from aiohttp import web

#: The error of a cursor that is not the `next` of an earlier answer.
NO_PLACE: Final = "use `next` of an earlier answer as it stands, or leave it out to begin anew"


def encode_place(place: Any) -> str:
    """A place in a list, as JSON, as one word for a URL. No signature: nothing secret is in it."""
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


def decode_place(text: str) -> Any:
    """The inverse, for whatever a client sends: its type is still to be checked.

    Raises:
        ValueError: it is not the `next` of an earlier answer.
    """
    try:
        return orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error):
        raise ValueError(NO_PLACE) from None


def next_link(request: web.Request, cursor: str | None) -> dict[str, str]:
    """The header that leads to the next page; none on the last."""
    if cursor is None:
        return {}
    url = request.rel_url.update_query(cursor=cursor)
    return {"Link": f'<{url}>; rel="next"'}
