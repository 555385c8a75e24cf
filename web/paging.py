"""Pages of lists: opaque cursors, and the link to the next page (RFC 8288)."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Final, Protocol

import orjson
from aiohttp import web
from pydantic import PlainValidator, WithJsonSchema

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


def _decode_row_id(text: str) -> int:
    place = decode_place(text)
    if type(place) is not int or not 0 <= place < 2**63:
        raise ValueError(NO_PLACE)
    return place


#: The cursor of a list whose place is the id of a row.
RowCursor = Annotated[int, PlainValidator(_decode_row_id), WithJsonSchema({"type": "string"})]


class Page(Protocol):
    """The model of a part of a list."""

    @property
    def next(self) -> str | None:
        """The cursor of the next part; None on the last."""

    def model_dump_json(self) -> str:
        """The page as JSON."""


def page_response(request: web.Request, page: Page) -> web.Response:
    """A page as JSON, with the header that leads to the next."""
    return web.json_response(text=page.model_dump_json(), headers=next_link(request, page.next))


def next_link(request: web.Request, cursor: str | None) -> dict[str, str]:
    """The header that leads to the next page; none on the last."""
    if cursor is None:
        return {}
    url = request.rel_url.update_query(cursor=cursor)
    return {"Link": f'<{url}>; rel="next"'}
