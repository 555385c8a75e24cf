"""The HTTP API as commands use it: one request after the other, with errors that say what to do and a status for each.

Nothing of the fleet is imported here, and neither pydantic nor asyncio: a command over HTTP starts in a tenth of the
time that the others take.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import quote, urlencode

import urllib3

from schemas.errors import ConcordError
from schemas.printable import printable

#: Exit statuses of commands over HTTP. 2 is also that of a wrong command line.
FAILED, INVALID, NOT_FOUND, REFUSED, CONFLICT, AWAY = 1, 2, 3, 4, 5, 6

#: What each means, for `--help`.
STATUSES: Final = """Exit status: 0 done, 1 the job failed, 2 invalid, 3 no such thing, 4 not permitted to the API key,
5 not possible in this state, 6 the fleet does not answer or is busy, 130 Ctrl-C."""

_OF_HTTP: Final[Mapping[int, int]] = {
    **dict.fromkeys((401, 403), REFUSED),
    **dict.fromkeys((404, 410), NOT_FOUND),
    **dict.fromkeys((409, 412, 422, 428), CONFLICT),
}

#: Seconds to connect, and between two parts of an answer.
CONNECT_S, READ_S = 5.0, 60.0

#: The address of a fleet on this machine, unless CONCORD_URL or CONCORD_HTTP has another.
LOCAL: Final = "127.0.0.1:8080"

#: Seconds before a call is made again that found no fleet, or a busy one.
WAITS_S: Final = (1.0, 3.0)

#: Most elements of a page.
PAGE: Final = 200

#: Requests that are sent again if the fleet does not answer: they change nothing, or the same the second time.
_RETRIED: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})


Answer = TypeVar("Answer")


class CommandFailed(ConcordError):
    """A command over HTTP has failed; the process ends with this status."""

    def __init__(self, text: str, exit_status: int) -> None:
        super().__init__(text)
        self.exit_status = exit_status


class Api:
    """One fleet's API, with one key."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"User-Agent": "concord-cli"} | ({"Authorization": f"Bearer {key}"} if key else {})
        timeout = urllib3.Timeout(connect=CONNECT_S, read=READ_S)
        retries = urllib3.Retry(
            total=3,
            backoff_factor=0.5,
            status_forcelist=(429, 503),
            allowed_methods=_RETRIED,
            redirect=0,
            raise_on_status=False,
        )
        self._pool = urllib3.PoolManager(timeout=timeout, retries=retries)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Api:
        """The fleet at CONCORD_URL, or the one on this machine, with CONCORD_API_KEY."""
        host, _, port = (environment.get("CONCORD_HTTP") or LOCAL).rpartition(":")
        here = f"http://{host if host not in ('', '0.0.0.0') else '127.0.0.1'}:{port}"  # noqa: S104 - a comparison
        return cls(environment.get("CONCORD_URL") or here, environment.get("CONCORD_API_KEY"))

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> urllib3.BaseHTTPResponse:
        """The answer of one request; `more` is `json`, `body` or `preload_content` of urllib3. Values of the query that
        are None are left out, those that are lists repeat.

        Raises:
            CommandFailed: The fleet does not answer, or refuses; the text is the problem's detail.
        """
        query = {name: value for name, value in (query or {}).items() if value is not None}
        url = f"{self.url}{path}" + (f"?{urlencode(query, doseq=True)}" if query else "")
        try:
            answer = self._pool.request(method, url, headers=self._headers | dict(headers or {}), **more)
        except urllib3.exceptions.LocationValueError:
            fail(f"CONCORD_URL: {self.url} is no URL", INVALID)
        except urllib3.exceptions.HTTPError as exc:
            reason = type(getattr(exc, "reason", None) or exc).__name__
            fail(
                f"no fleet answers at {self.url} ({reason}). `concord up` starts one here; CONCORD_URL names another",
                AWAY,
            )
        if answer.status >= 400:
            fail(*_problem(answer))
        return answer

    def get(self, path: str, **query: Any) -> Any:
        """The JSON document at a path."""
        return self.call("GET", path, query=query).json()

    def items(self, path: str, name: str, limit: int, **query: Any) -> Iterator[Any]:
        """At most `limit` elements of the list `name`, over as many pages as it takes."""
        cursor = None
        while limit > 0:
            page = self.get(path, limit=min(limit, PAGE), cursor=cursor, **query)
            yield from page[name][:limit]
            limit -= len(page[name])
            cursor = page.get("next")
            if cursor is None:
                return

    def tenant(self, named: str | None, first: str | None = None, *, option: str = "--tenant") -> str:
        """The tenant that is named by `option`, or the only one that the key sees; `first` where there is none yet.

        Raises:
            CommandFailed: There are several.
        """
        if named is not None:
            return named
        tenants = self.get("/tenants")["tenants"] or [first] * (first is not None)
        if len(tenants) != 1:
            there = ", ".join(map(printable, tenants[:20])) or "none"
            fail(f"say which tenant with {option}; there are: {there}", INVALID)
        return str(tenants[0])


def again(call: Callable[[], Answer]) -> Answer:
    """The answer of a call, which is made again after some seconds where no fleet answers, or a busy one. Made with one
    `Idempotency-Key`, it is done once.
    """
    for wait_s in WAITS_S:
        try:
            return call()
        except CommandFailed as exc:
            if exc.exit_status != AWAY:
                raise
            time.sleep(wait_s)
    return call()


def job_path(name: str, *parts: str) -> str:
    """The path of a job by its id or reference, and of what belongs to it."""
    return "/".join(["/jobs", quote(name, safe=""), *parts])


def _problem(answer: urllib3.BaseHTTPResponse) -> tuple[str, int]:
    """The text and exit status of an error."""
    try:
        document = json.loads(answer.data)
        text, code = str(document["detail"]), document.get("code")
    except (ValueError, KeyError, TypeError):
        text, code = f"the server answers with {answer.status} {answer.reason}", None
    status = _OF_HTTP.get(answer.status, AWAY if answer.status >= 500 or answer.status == 429 else INVALID)
    return text + (f" ({code})" if code else ""), status


def fail(text: str, status: int) -> NoReturn:
    """Raises CommandFailed."""
    raise CommandFailed(text, status)
