"""What S3's errors and timeouts mean: wait, not found, or something that an operator has to change."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from schemas.errors import ConcordError, InvalidInput, Misconfigured, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

#: The permission that each of our requests needs.
PERMISSIONS: Final = {
    "put_object": "s3:PutObject",
    "create_multipart_upload": "s3:PutObject",
    "upload_part": "s3:PutObject",
    "complete_multipart_upload": "s3:PutObject",
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "list_parts": "s3:ListMultipartUploadParts",
    "list_multipart_uploads": "s3:ListBucketMultipartUploads",
    "get_object": "s3:GetObject",
    "head_object": "s3:GetObject",
    "delete_object": "s3:DeleteObject",
    "list_objects_v2": "s3:ListBucket",
}

#: S3's codes for a bucket that is in another region. The SDK follows those that say in which, where it can.
_ELSEWHERE: Final = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)

#: S3's codes for what only an operator can change, and how.
_OPERATOR: Final = {
    "InvalidAccessKeyId": "the access key is not known there: check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret is not the access key's: check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the session token has expired: renew AWS_SESSION_TOKEN",
    "InvalidToken": "the session token is not valid: check AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "this machine's clock is more than 15 minutes wrong: set it",
    "NoSuchBucket": "there is no such bucket: create it, or check S3_BUCKET_NAME and S3_ENDPOINT_URL",
}

#: Codes that look like our fault by their status (4xx), but pass.
_PASSING: Final = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
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


class NoUpload(Unavailable):
    """A multipart upload that is completed, or removed."""


class Exists(InvalidInput):
    """A blob that was to be written once exists already, or is being written by another writer."""


class Unsupported(Misconfigured):
    """The server lacks a part of S3's protocol that the request uses."""


class IsFolder(InvalidInput):
    """A blob by the name of a folder, as a gateway over a file system sees it."""


class Denied(Misconfigured):
    """The key is good, but may not do this."""

    def __init__(self, place: Place, permissions: Collection[str], said: str, *, granted: Collection[str] = ()) -> None:
        has = f"; it has {', '.join(granted)}" if granted else ""
        if "s3:GetObject" in permissions and "s3:ListBucket" not in {*permissions, *granted}:
            has += " (and s3:ListBucket: without that one S3 refuses instead of saying that a blob is not there)"
        needed = f"{', '.join(permissions)} on {place.bucket}/{place.prefix}*"
        super().__init__(f"{place}: this key needs {needed}{has} ({said})")
        #: What S3 calls that which the key may not do, and what S3 said.
        self.permissions, self.said = tuple(permissions), said


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
    if isinstance(exc, (TimeoutError, sdk.ConnectTimeoutError, sdk.ReadTimeoutError)):
        return Unavailable(f"{place} did not answer {operation} in time")
    if isinstance(exc, sdk.SSLError):
        return Unavailable(f"{place} cannot be reached by TLS: {_reason(exc)}. Is it http://, or its CA unknown here?")
    if isinstance(exc, sdk.EndpointConnectionError):  # its own message has the URL of the blob, but not the reason
        return Unavailable(f"{place} cannot be reached: {_reason(exc)}")
    return Unavailable(f"{place} does not answer {operation}: {exc}")


def _refusal(response: Mapping[str, Any], operation: str, place: Place, key: str) -> ConcordError:
    error = response.get("Error", {})
    code, text = error.get("Code", ""), error.get("Message", "")
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _OPERATOR:
        return Misconfigured(f"{place}: {_OPERATOR[code]} ({code}: {text})")
    if code in _ELSEWHERE:
        return Misconfigured(
            f"{place}: the bucket is in another region{_region(response)}: check S3_REGION ({code}: {text})"
        )
    if _is_unsupported(operation, code, status, text):
        return Unsupported(f"{place} does not have what {operation} uses: {code or status}: {text}")
    if code == "NoSuchUpload":
        return NoUpload(f"{place} has no upload for {operation} any more ({text})")
    if code in _PASSING or status >= 500 or status == 429:
        return Unavailable(f"{place} refused {operation} for now ({code or status}: {text})")
    return _blob_refusal(code, status, text, operation, place, key)


def _blob_refusal(code: str, status: int, text: str, operation: str, place: Place, key: str) -> ConcordError:
    """What a refusal means that is about one blob, and neither about the bucket nor about the server."""
    match code, status:
        case ("ConditionalRequestConflict", _) | (_, 412):
            return Exists(f"there is a blob s3://{place.bucket}/{key} already ({code}: {text})")
        case "ExistingObjectIsDirectory", _:
            return IsFolder(f"blob name {key!r}: there are blobs inside it, and {place} cannot have one lie in another")
        case "ObjectParentIsFile", _:
            return InvalidInput(f"blob name {key!r}: it lies inside a blob, which {place} cannot have")
        case _, 404:
            return NotFound(f"there is no blob s3://{place.bucket}/{key}")
        case _, 416:
            return PastEnd(f"s3://{place.bucket}/{key} ends before that byte")
        case _, 403:
            return Denied(place, [PERMISSIONS.get(operation, operation)], f"{code}: {text}")
        case _:
            return Misconfigured(f"{place} does not take {operation}: {code or status}: {text}")


#: Requests with headers that older servers do not have.
_WRITES: Final = frozenset({"put_object", "create_multipart_upload", "upload_part", "complete_multipart_upload"})

#: What older servers call a request whose checksum, trailer or condition they do not understand. A real mismatch of a
#: checksum has a code of its own and stays what it is.
_NOT_UNDERSTOOD: Final = frozenset({"InvalidArgument", "InvalidRequest", "BadRequest", "MalformedTrailerError", "400"})


def _is_unsupported(operation: str, code: str, status: int, text: str) -> bool:
    """Whether the server lacks the request, or a header of it that belongs to the protocol's newer parts."""
    if code == "NotImplemented" or status == 501:
        return True
    headers = ("checksum", "trailer", "if-none-match", "header", "aws-chunked")
    return operation in _WRITES and code in _NOT_UNDERSTOOD and any(word in text.lower() for word in headers)


def _reason(exc: Any) -> str:
    """What the system said about a connection that was not made."""
    error = exc.kwargs["error"]
    error = getattr(error, "os_error", error)
    return str(getattr(error, "strerror", None) or error)


def _region(response: Mapping[str, Any]) -> str:
    """Which it is, where the answer says."""
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region") or response.get("Error", {}).get("Region", "")
    return f" ({region})" if region else ""
