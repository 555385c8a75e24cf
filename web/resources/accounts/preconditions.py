"""`ETag` and `If-Match` of what has a version number: who changes it says which version the change was made from."""

from __future__ import annotations

from web.problems import ApiProblem


def etag(version: int) -> str:
    """The entity tag of a version."""
    return f'"{version}"'


def check_if_match(if_match: str | None, version: int) -> None:
    """Check that a change was made from this version, or from any (`*`).

    Raises:
        ApiProblem: it does not say from which, or it was another.
    """
    if if_match is None:
        raise ApiProblem("precondition_required", "send the ETag of what you have read in `If-Match`")
    tags = {tag.strip() for tag in if_match.split(",")}
    if "*" not in tags and etag(version) not in tags:
        raise ApiProblem("version_changed", f"this has the ETag {etag(version)} now; read it again")
