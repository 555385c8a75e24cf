"""Rules that all blob stores share: which names, ranges and content types are valid. Pure functions."""

from __future__ import annotations

import re
import unicodedata
from mimetypes import MimeTypes
from typing import TYPE_CHECKING, Final

from schemas.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Bytes of UTF-8 in a name. S3 keys end at 1024; the rest is room for a store's own prefix.
NAME_LIMIT: Final = 900

#: Bytes of UTF-8 between two slashes: what file systems take.
SEGMENT_LIMIT: Final = 255

#: Bytes that are read, hashed or written in one go.
PIECE: Final = 1 << 20

#: Control characters, lone surrogates, line and paragraph separators: unseen in a log, some not even encodable.
_UNPRINTABLE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})

_CONTENT_TYPE = re.compile(r"[\w.+!#$&^-]+/[\w.+!#$&^-]+(\s*;[\x20-\x7e]*)?", re.ASCII)

#: Without the system's own tables, so that every machine guesses the same.
_types = MimeTypes()
_types.add_type("text/markdown", ".md")


def check_name(name: str) -> str:
    """The name, if it may be a blob's; else InvalidInput saying why not.

    Segments divided by `/`; none empty or beginning with a dot (so no `..`, no absolute path, and what begins with a
    dot is the store's own), no backslash, no control characters, within the limits above. Other Unicode is fine.
    """
    for segment in name.split("/"):
        if not segment or segment.startswith("."):
            raise InvalidInput(f"blob name {name!r}: {segment!r} may be neither empty nor begin with a dot")
        if "\\" in segment or any(unicodedata.category(character) in _UNPRINTABLE for character in segment):
            raise InvalidInput(f"blob name {name!r}: no backslashes, control characters or lone surrogates")
        if len(segment.encode()) > SEGMENT_LIMIT:
            raise InvalidInput(f"blob name {name!r}: {segment!r} is longer than {SEGMENT_LIMIT} bytes")
    if len(name.encode()) > NAME_LIMIT:
        raise InvalidInput(f"blob name {name!r} is longer than {NAME_LIMIT} bytes")
    return name


def check_prefix(prefix: str) -> str:
    """The prefix, if it is empty or whole segments ending in `/`: `acme` would list what is `acme2`'s."""
    if prefix:
        check_name(prefix.removesuffix("/"))
        if not prefix.endswith("/"):
            raise InvalidInput(f"prefix {prefix!r} must end in '/', or it would match other tenants and jobs")
    return prefix


def is_name(name: str) -> bool:
    """Whether a blob may have this name; False for files that other programs put among the blobs."""
    try:
        check_name(name)
    except InvalidInput:
        return False
    return True


def name_in(base: str, uri: str) -> str:
    """The name behind a URI that begins with `base`; InvalidInput for any other URI."""
    if not uri.startswith(base):
        raise InvalidInput(f"{uri!r} is not in this store ({base}...)")
    return check_name(uri.removeprefix(base))


def check_range(start: int, end: int | None) -> None:
    """Refuse a range that runs backwards or begins before the first byte."""
    if start < 0 or (end is not None and end < start):
        raise InvalidInput(f"bytes {start} to {end} are no range: start at 0 or later, and end (exclusive) after it")


def check_content_type(content_type: str) -> str:
    """The content type, if it can be a header's value as it stands."""
    if len(content_type) > 255 or not _CONTENT_TYPE.fullmatch(content_type):
        raise InvalidInput(f"{content_type!r} is not a content type such as 'audio/mpeg'")
    return content_type


def check_expiry(expires_s: int) -> None:
    """Refuse a validity that signed URLs cannot have (S3's limit is a week)."""
    if not 1 <= expires_s <= 7 * 24 * 3600:
        raise InvalidInput(f"a URL can be valid for 1 second to 7 days, not for {expires_s} s")


def guess_content_type(name: str) -> str:
    """What a blob is, by its name alone: for one whose content type was not kept."""
    return _types.guess_type(name)[0] or "application/octet-stream"


async def gathered(pieces: AsyncIterator[bytes], size: int = PIECE) -> AsyncIterator[bytes]:
    """The same bytes in pieces of at least `size` (but the last): each piece costs a hop to a thread."""
    held: list[bytes] = []
    total = 0
    async for piece in pieces:
        held.append(piece)
        total += len(piece)
        if total >= size:
            yield b"".join(held)
            held, total = [], 0
    if held:
        yield b"".join(held)
