"""What S3's refusals and silences mean: what to wait for, what is not there, and what the operator has to mend."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from schemas.errors import ConcordError, InvalidInput, Misconfigured, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

_READING = "s3:GetObject (and s3:ListBucket: without that one S3 refuses instead of saying that a blob is not there)"

#: The permission that each of our requests needs.
_PERMISSIONS: Final = {
    "put_object": "s3:PutObject",
    "create_multipart_upload": "s3:PutObject",
    "upload_part": "s3:PutObject",
    "complete_multipart_upload": "s3:PutObject",
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "get_object": _READING,
    "head_object": _READING,
    "delete_object": "s3:DeleteObject",
    "list_objects_v2": "s3:ListBucket",
}

_OTHER_REGION: Final = "the bucket is in another region: check S3_REGION"

#: S3's codes for what only the operator can mend, and how.
_OPERATOR: Final = {
    "InvalidAccessKeyId": "the access key is not known there: check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret is not the access key's: check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the session token has expired: renew AWS_SESSION_TOKEN",
    "InvalidToken": "the session token is not valid: check AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "this machine's clock is more than 15 minutes wrong: set it",
    "NoSuchBucket": "there is no such bucket: create it, or check S3_BUCKET_NAME and S3_ENDPOINT_URL",
    "PermanentRedirect": _OTHER_REGION,
    "AuthorizationHeaderMalformed": _OTHER_REGION,
    "IllegalLocationConstraintException": _OTHER_REGION,
}

#: Codes that look like our fault by their status (4xx), but pass.
_PASSING: Final = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "NoSuchUpload",
        "OperationAborted",
        "QuotaExceeded",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)


class PastEnd(InvalidInput):
    """A range that begins after the last byte."""


class Exists(InvalidInput):
    """A blob that was to be written once is there already, or is being written by somebody else."""


class IsFolder(InvalidInput):
    """A blob by the name of a folder, as a gateway over a file system sees it."""


class Place(NamedTuple):
    """Where a store's blobs are, for messages."""

    bucket: str
    prefix: str
    server: str

    def __str__(self) -> str:
        return f"bucket {self.bucket} at {self.server}"


@cache
def failures() -> tuple[type[Exception], ...]:
    """All that a request may raise. A function, as these imports take half a second."""
    import aiohttp
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    return (BotoCoreError, ClientError, ResponseParserError, aiohttp.ClientError, OSError)


def explain(exc: Exception, operation: str, place: Place, key: str) -> ConcordError:
    """The error to raise for what `operation` on `key` raised."""
    from botocore import exceptions as sdk

    if isinstance(exc, sdk.ClientError):
        return _refusal(exc.response, operation, place, key)
    if isinstance(exc, (sdk.NoCredentialsError, sdk.PartialCredentialsError)):
        return Misconfigured(
            f"no keys for {place} ({exc}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
        )
    if isinstance(exc, (sdk.ParamValidationError, sdk.ProfileNotFound, sdk.NoRegionError, sdk.InvalidConfigError)):
        return Misconfigured(f"{place} cannot be asked: {exc}. Check S3_BUCKET_NAME, S3_REGION and AWS_PROFILE.")
    if isinstance(exc, TimeoutError):
        return Unavailable(f"{place} did not answer {operation} in time")
    return Unavailable(f"{place} does not answer {operation}: {exc}")


def _refusal(response: Mapping[str, Any], operation: str, place: Place, key: str) -> ConcordError:
    error = response.get("Error", {})
    code, text = error.get("Code", ""), error.get("Message", "")
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _OPERATOR:
        return Misconfigured(f"{place}: {_OPERATOR[code]} ({code}: {text})")
    if code in _PASSING or status >= 500 or status == 429:
        return Unavailable(f"{place} refused {operation} for now ({code or status}: {text})")
    if status == 412 or code == "ConditionalRequestConflict":
        return Exists(f"there is a blob s3://{place.bucket}/{key} already ({code}: {text})")
    if code == "ExistingObjectIsDirectory":
        return IsFolder(f"blob name {key!r}: there are blobs inside it, and {place} cannot have one lie in another")
    if code == "ObjectParentIsFile":
        return InvalidInput(f"blob name {key!r}: it lies inside a blob, which {place} cannot have")
    if status == 404:
        return NotFound(f"there is no blob s3://{place.bucket}/{key}")
    if status == 416:
        return PastEnd(f"s3://{place.bucket}/{key} ends before that byte")
    if status == 403:
        permission = _PERMISSIONS.get(operation, operation)
        return Misconfigured(f"{place}: this key needs {permission} on {place.bucket}/{place.prefix}* ({code}: {text})")
    return Misconfigured(f"{place} does not take {operation}: {code or status}: {text}")
