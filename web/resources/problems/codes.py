"""The codes of problems over HTTP. A code keeps its meaning and its status; `/problems/{code}` explains each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ProblemCode:
    """One kind of error: its status, what it means, and what whoever gets it can do."""

    status: int
    meaning: str
    remedy: str


#: By code. The first code of a status is the one of an error that names none.
CODES: Final[dict[str, ProblemCode]] = {
    "invalid_request": ProblemCode(
        400,
        "A parameter, a header or a field of the body is missing, wrong or unknown.",
        "Correct what `errors` names; `/openapi.json` says what each of them may be.",
    ),
    "unauthorized": ProblemCode(
        401,
        "The request carries no API key, or one that is unknown, expired or revoked.",
        "Send a valid key as `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
    ),
    "forbidden": ProblemCode(
        403,
        "The API key is valid, and its scopes do not permit this.",
        "Use a key with the scope that `detail` names; whoever administers the tenant makes one.",
    ),
    "not_found": ProblemCode(
        404,
        "There is no such thing. What belongs to another tenant is answered in the same way.",
        "Check the address, and whose key it is.",
    ),
    "method_not_allowed": ProblemCode(
        405, "There is something at this address, which this method does not go with.", "Use a method in `Allow`."
    ),
    "not_acceptable": ProblemCode(
        406, "No form in which this is available suits `Accept`.", "Ask for one that `detail` names."
    ),
    "request_timeout": ProblemCode(
        408, "The request did not arrive in the time that there is for it.", "Send it again, over a faster connection."
    ),
    "conflict": ProblemCode(
        409, "The request does not go with the state in which the thing is.", "`detail` says what it would need."
    ),
    "ambiguous": ProblemCode(
        409,
        "Several tenants have a job of this name, and an operator's key sees them all.",
        "Choose one of `tenants` with `?tenant=`.",
    ),
    "too_many_keys": ProblemCode(
        409, "The tenant has as many valid API keys as it may have.", "Revoke one that is not used."
    ),
    "key_not_valid": ProblemCode(
        409, "The API key has expired or is revoked, so it cannot be rotated.", "Make a new key instead."
    ),
    "no_secret_key": ProblemCode(
        409,
        "A secret is to be stored, and this installation has no key to encrypt it with.",
        "Have an operator set CONCORD_SECRET_KEY (`openssl rand -base64 32`), the same for all workers.",
    ),
    "version_changed": ProblemCode(
        412,
        "Somebody else has changed this since it was read.",
        "Read it again, make the change anew, and send the new `ETag` in `If-Match`.",
    ),
    "too_large": ProblemCode(413, "The body has more bytes than are taken here.", "Send less; `detail` says how much."),
    "unsupported_media_type": ProblemCode(
        415, "The body is of a type that is not taken here.", "Send it as one of the types in `detail` or `Accept`."
    ),
    "range_not_satisfiable": ProblemCode(
        416, "The range lies outside what there is.", "`Content-Range` says how much there is."
    ),
    "unprocessable": ProblemCode(422, "The request is well-formed, and cannot be carried out.", "`detail` says why."),
    "precondition_required": ProblemCode(
        428,
        "Two people may change this at the same time, so a change says which version it was made from.",
        "Send the `ETag` of what was read in `If-Match`.",
    ),
    "rate_limited": ProblemCode(
        429,
        "The API key has sent more requests than its tenant's `requests_per_minute`.",
        "Ask again after `Retry-After` seconds; `RateLimit` tells what is left.",
    ),
    "too_many_streams": ProblemCode(
        429, "The caller has as many streamed answers open as one caller may.", "Close one first."
    ),
    "internal_error": ProblemCode(
        500, "This is a fault of Concord.", "Report it with `request_id`, by which it is found in the log."
    ),
    "unavailable": ProblemCode(
        503,
        "A server that the answer needs is away, or this one has as much to do as it can.",
        "Ask again after `Retry-After` seconds; nothing is lost.",
    ),
}

_BY_STATUS: Final = {CODES[code].status: code for code in reversed(CODES)}


def code_of(status: int) -> str:
    """The code of an error that has only a status."""
    return _BY_STATUS.get(status, "invalid_request" if status < 500 else "internal_error")
