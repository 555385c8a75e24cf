"""`ETag` and `If-Match` (RFC 9110, RFC 6585): who changes a thing says which version of it the change was made from."""

from __future__ import annotations

import re
from typing import Final

from web.problems import ApiProblem

_TAG: Final = re.compile(r'(?:W/)?"[^"]*"')


def etag(*numbers: int) -> str:
    """The entity tag of what these numbers identify, a version for example."""
    return f'"{"-".join(map(str, numbers))}"'


def check_if_match(if_match: str | None, current: str) -> None:
    """Check that a change was made from the version with the tag `current`, or from any (`*`).

    Raises:
        ApiProblem: it does not say from which, or it was another.
    """
    if if_match is None:
        text = "send the `ETag` of what you have read as `If-Match`"
        raise ApiProblem("precondition_required", text, headers={"ETag": current})
    if if_match.strip() != "*" and current not in _TAG.findall(if_match):
        raise changed(current)


def changed(current: str) -> ApiProblem:
    """The error of a change that was made from another version than the one with the tag `current`."""
    text = f"this has the ETag {current} now: read it again, and make your change anew"
    return ApiProblem("version_changed", text, headers={"ETag": current})
