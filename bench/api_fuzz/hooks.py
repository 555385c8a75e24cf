"""Changes requests of schemathesis that would end the run: those without a signature, and those that limit it."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import requests
import schemathesis
from schemathesis.core.failures import Failure

from bench.api_fuzz.seed import KEYS, SECRET
from schemas.webhooks import elevenlabs
from schemas.webhooks.signature import headers_of


def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """The request with the three headers of Standard Webhooks."""
    body = request.body or b""
    body = body.encode() if isinstance(body, str) else body
    request.headers.update(headers_of([SECRET], str(uuid4()), int(time.time()), body))
    return request


def sign_as_elevenlabs(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """The request with the header of ElevenLabs' webhooks."""
    body = request.body or b""
    body = body.encode() if isinstance(body, str) else body
    request.headers[elevenlabs.HEADER] = elevenlabs.sign(SECRET, body, int(time.time()))
    return request


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Sign what outside services and ElevenLabs send: without a signature, nothing else is looked at. Settings are
    changed of carl alone: a tenant that lowers its own limits could ask no more.
    """
    if case.path.endswith("/settings") and case.path_parameters.get("tenant") in KEYS:
        case.path_parameters["tenant"] = "carl"
    if case.path == "/webhooks/stt":
        kwargs["auth"] = sign
    if case.path == "/webhooks/elevenlabs":
        kwargs["auth"] = sign_as_elevenlabs


@schemathesis.hook
def filter_failure(
    _: schemathesis.HookContext, failure: Failure, case: schemathesis.Case, response: schemathesis.Response
) -> bool:
    """Requests may be accepted although a parameter is empty, which counts as left out, or repeated, of which the first
    counts (`web.parameters`).
    """
    del response
    unusual = any(value in ("", None) or isinstance(value, list | dict) for value in (case.query or {}).values())
    return not (unusual and failure.title == "Schema-violating request accepted")
