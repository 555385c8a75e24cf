"""A server with AssemblyAI's REST protocol, for the vendor's own SDK: it bills, and can be made to fail.

`python -m tests.servers.assemblyai --port 9000 --ledger ledger.jsonl`

    POST   /v2/upload            raw body -> {"upload_url"}; free
    POST   /v2/transcript        {"audio_url", ...} -> the transcript, queued; the one call that is charged
    GET    /v2/transcript/{id}   the transcript
    GET    /v2/transcript        ?limit&before_id -> {"page_details", "transcripts"}, newest first
    DELETE /v2/transcript/{id}   the transcript without its content

Transcripts come from a script, by the content of an upload or the path of another URL; those of uploads, and of audio
that the switch `fetch` reads, come from `listen`, a function from a file to a Hypothesis, or from the switch `tones`.
Charges are lines of the ledger, as in `tests/servers/billing.py`: on the disk before the response, kept after a kill,
one for each submission, also of the same audio_url. Callbacks are lost by a kill.

    GET /ledger            the charges: [{id, audio_url, charged_at, ready_at, lost (its answer), ...}]
    GET /fetched           responses of audio_urls: [{id, status, content_type, bytes, sha256}]
    GET /arrivals          arrival times of requests: [[unix time, call], ...]
    GET, PUT /switches     its misbehaviour; a PUT replaces all switches, so `{}` resets them

    delay_s       seconds from a charge until the transcript is there (0)
    lose_answer   charge, then cut the connection instead of responding
    cut           cut the connection instead of accepting the request, uncharged
    refuse_429    refuse with 429 and Retry-After: retry_after_s (1), uncharged
    error_5xx     fail with 503 and Retry-After: retry_after_s, uncharged
    forbidden     refuse with 403, uncharged
    stall         accept the request and never respond, uncharged; clients are cut off when it ends
    garble        respond, and charge, with a body that is not JSON
    mangle        respond with JSON that is no transcript: a list, and words without text
    novel         use values that the SDK does not know: a status, a model, a policy, a fraction of a second
    fail          transcripts end with status "error"; a text is their error
    half          charge, then send half a response and cut the connection
    status        HTTP status of a submission, which is charged and has an id (200)
    bare          list audio_urls without their query
    fetch         read the audio of other URLs than uploads, as the vendor does, or fail: "Download error"
    tones         recognize with `google_speech.bursts`, so that two servers recognize the same recording
    slip          with `tones`: one of so many words is wrong (0: none)
    on            calls to which cut, refuse_429, error_5xx, forbidden, stall, garble, mangle apply: upload,
                  submit, find, poll (all)

and those of `tests/servers/billing.py`: late, listed_s, page, gap, repeat.

Checked against the SDK 1.8.2 (run unmodified: paths, header, fields, the list's paging, "error" in bodies) and the
vendor's documentation (the list's order, limit of 200, times without a zone; 400 for an unknown id; 401's text; the
callback's body, header, ten attempts ten seconds apart unless the response is 4xx). Not checked, for want of an
account: texts of other errors, the charge for a transcript that fails, whether the list repeats an audio_url byte for
byte, and how soon a new transcript is listed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import time
import uuid
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from assemblyai import LanguageCode
from yarl import URL

from agents.asr.scripted import hear
from agents.media.decoding.chunks import chunks
from schemas.words import Hypothesis, Word
from tests.servers.billing import Billing, Switched, cut, half

#: Seconds between two attempts of a callback, and the number of attempts.
AGAIN_S, TRIES = 10.0, 10

#: Sample rate of the recognition of tones, in hertz.
RATE = 16_000


@dataclass
class Switches(Switched):
    """How the server responds; see the module."""

    delay_s: float = 0.0
    lose_answer: bool | int = False
    half: bool | int = False
    status: int = 200
    cut: bool | int = False
    refuse_429: bool | int = False
    error_5xx: bool | int = False
    forbidden: bool | int = False
    stall: bool | int = False
    garble: bool | int = False
    mangle: bool | int = False
    novel: bool = False
    fail: bool | str = False
    bare: bool = False
    fetch: bool = False
    tones: bool = False
    slip: int = 0
    retry_after_s: float | str = 1.0
    on: list[str] = field(default_factory=lambda: ["upload", "submit", "find", "poll"])

    def hits(self, name: str, call: str) -> bool:
        """Whether a misbehaviour applies to this call; one with a number is counted down."""
        return call in self.on and self.takes(name)


class Server(Billing):
    """The routes. `key` is the only valid API key; None accepts any."""

    def __init__(
        self,
        ledger: Path,
        *,
        key: str | None = None,
        listen: Callable[[Path], Awaitable[Hypothesis]] | None = None,
        again_s: float = AGAIN_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(ledger, Switches(), clock)
        self.key = key
        self.listen = listen
        self.again_s = again_s
        #: Requests that were received, as (call, headers).
        self.calls: list[tuple[str, dict[str, str]]] = []
        #: HTTP statuses of the responses to callbacks.
        self.called: list[int] = []
        #: Results of reading audio; see the module.
        self.fetched: list[dict[str, Any]] = []
        self._uploads = ledger.parent / "uploads"
        self._heard: dict[str, Hypothesis] = {}
        #: By id: errors of failed transcripts, and transcripts whose audio is being read or recognized.
        self._failed: dict[str, str] = {}
        self._hearing: set[str] = set()
        self._deleted: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=4 << 30)
        app.add_routes(
            [
                web.post("/v2/upload", self.upload),
                web.post("/v2/transcript", self.submit),
                web.get("/v2/transcript", self.find),
                web.get("/v2/transcript/{id}", self.poll),
                web.delete("/v2/transcript/{id}", self.delete),
                web.get("/fetched", self.list_fetched),
                *self.operated(),
            ]
        )
        app.on_cleanup.append(self._clean_up)
        return app

    async def upload(self, request: web.Request) -> web.StreamResponse:
        if (answer := await self._misbehaved(request, "upload")) is not None:
            return answer
        name, crc = str(uuid.uuid4()), 0
        with contextlib.ExitStack() as stack:
            file = None
            if self._listens:
                file = stack.enter_context(self._kept(name).open("wb"))
            async for chunk in request.content.iter_any():
                crc = zlib.crc32(chunk, crc)
                if file is not None:
                    file.write(chunk)
        return web.json_response({"upload_url": f"http://{request.host}/upload/{name}/{crc}"})

    async def submit(self, request: web.Request) -> web.StreamResponse:
        if (answer := await self._misbehaved(request, "submit")) is not None:
            return answer
        body = await request.json()
        if (wrong := _wrong(body)) is not None:
            return web.json_response({"error": wrong}, status=400)
        if self.switches.takes("late"):
            return await self._late(request, body)
        lost = self.switches.hits("lose_answer", "submit")
        charge = self._charge(body, self.clock(), lost=lost)
        if lost:
            return cut(request)
        answer = self._transcript(charge) | {"status": "queued"}
        if self.switches.hits("half", "submit"):
            return await half(request, answer)
        if self.switches.status != 200:
            return web.json_response(answer, status=self.switches.status)
        return self._odd("submit", answer)

    def _charge(self, body: dict[str, Any], now: float, *, lost: bool) -> dict[str, Any]:
        charge = {"id": str(uuid.uuid4()), "charged_at": now, "ready_at": now + self.switches.delay_s}
        charge |= {"audio_url": body["audio_url"], "wish": body, "lost": lost}
        self.ledger.charge(charge)
        self._hearing.add(charge["id"])
        self._begin(self._work(charge))
        return charge

    async def _late(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        charges: list[dict[str, Any]] = []
        accepted = self.take(lambda at: charges.append(self._charge(body, at, lost=True)))
        answer = self.switches.lateness()
        if answer == "cut":
            return cut(request)
        if answer == "504":
            return web.Response(status=504, text="<html>upstream request timeout</html>", content_type="text/html")
        await accepted.wait()
        return web.json_response(self._transcript(charges[0]) | {"status": "queued"})

    async def find(self, request: web.Request) -> web.StreamResponse:
        if (answer := await self._misbehaved(request, "find")) is not None:
            return answer
        limit = int(request.query.get("limit", "10"))
        if not 1 <= limit <= 200:
            return web.json_response({"error": "limit must be between 1 and 200"}, status=400)
        there = self.listed(self.ledger.charges)
        newest = [charge for charge in reversed(there) if charge["id"] not in self._deleted]
        if before := request.query.get("before_id"):
            newest = list(itertools.dropwhile(lambda charge: charge["id"] != before, newest))[1:]
        page, base = (
            self.switches.shown(newest[: min(limit, self.switches.page)]),
            f"http://{request.host}/v2/transcript",
        )
        older = f"{base}?limit={limit}&before_id={page[-1]['id']}" if page else None
        details = {"limit": limit, "result_count": len(page), "current_url": str(request.url), "prev_url": older}
        return self._odd("find", {"page_details": details, "transcripts": [self._item(base, c) for c in page]})

    async def poll(self, request: web.Request) -> web.StreamResponse:
        if (answer := await self._misbehaved(request, "poll")) is not None:
            return answer
        charge = self.ledger.by_id.get(request.match_info["id"])
        if charge is None or charge["id"] in self._deleted:
            return web.json_response({"error": "Transcript lookup error, transcript id not found"}, status=400)
        return self._odd("poll", self._transcript(charge))

    async def delete(self, request: web.Request) -> web.StreamResponse:
        charge = self.ledger.by_id.get(request.match_info["id"])
        if (answer := await self._misbehaved(request, "delete")) is not None:
            return answer
        if charge is None or charge["id"] in self._deleted:
            return web.json_response({"error": "Transcript lookup error, transcript id not found"}, status=400)
        self._deleted.add(charge["id"])
        gone = {"audio_url": "http://deleted_by_user", "text": "Deleted by user.", "words": None}
        return web.json_response(self._transcript(charge) | gone)

    async def list_fetched(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(self.fetched)

    async def _misbehaved(self, request: web.Request, call: str) -> web.StreamResponse | None:
        """The response of a misbehaviour or of a wrong key to this call; None if there is none."""
        self.arrived(call)
        self.calls.append((call, dict(request.headers)))
        switches = self.switches
        if switches.hits("stall", call):
            await self._changed.wait()
            return cut(request)
        if switches.hits("cut", call):
            return cut(request)
        if self.key is not None and request.headers.get("authorization") != self.key:
            return web.json_response({"error": "Authentication error, API token missing/invalid"}, status=401)
        pause = switches.retry_after_s
        headers = {"Retry-After": pause if isinstance(pause, str) else f"{pause:g}"}
        if switches.hits("refuse_429", call):
            return web.json_response({"error": "Too many requests"}, status=429, headers=headers)
        if switches.hits("forbidden", call):
            return web.json_response({"error": "Access denied"}, status=403)
        if switches.hits("error_5xx", call):
            error = "Server error, developers have been alerted."
            return web.json_response({"error": error}, status=503, headers=headers)
        return None

    def _odd(self, call: str, body: dict[str, Any]) -> web.StreamResponse:
        if self.switches.hits("garble", call):
            return web.Response(text="<html>a gateway's page</html>", content_type="text/html")
        if self.switches.hits("mangle", call):
            return web.json_response([] if call == "find" else {"id": "", "words": [{"start": "soon"}]})
        return web.json_response(body)

    def _item(self, base: str, charge: dict[str, Any]) -> dict[str, Any]:
        created = datetime.fromtimestamp(charge["charged_at"], UTC).replace(tzinfo=None).isoformat()
        url = charge["audio_url"].partition("?")[0] if self.switches.bare else charge["audio_url"]
        there = {"id": charge["id"], "resource_url": f"{base}/{charge['id']}", "status": self._status(charge)}
        return there | {"created": created, "completed": None, "audio_url": url, "error": None}

    def _status(self, charge: dict[str, Any]) -> str:
        if charge["id"] in self._hearing or self.clock() < charge["ready_at"]:
            return "throttled" if self.switches.novel else "processing"
        return "error" if self.switches.fail or charge["id"] in self._failed else "completed"

    def _transcript(self, charge: dict[str, Any]) -> dict[str, Any]:
        """The transcript in its current state: the fields of the request, and the results so far."""
        wish, status = charge["wish"], self._status(charge)
        shown = {name: value for name, value in wish.items() if name != "webhook_auth_header_value"}
        body = shown | {"id": charge["id"], "status": status, "webhook_auth": "webhook_auth_header_value" in wish}
        if status == "error":
            fail = self.switches.fail
            said = fail if isinstance(fail, str) else self._failed.get(charge["id"]) or _no_download(charge)
            return body | {
                "error": said,
                "text": None,
                "words": None,
                "audio_duration": 3 if "spoken" in said else None,
            }
        if status != "completed":
            return body | {"text": None, "words": None}
        body |= _content(wish, self._heard.get(charge["id"]) or _scripted(charge["audio_url"]))
        if self.switches.novel:
            body |= {"speech_model": "universal-9", "speech_model_used": "universal-9"}
            body |= {"redact_pii_policies": ["star_sign_of_pet"], "audio_duration": body["audio_duration"] + 0.25}
        return body

    async def _work(self, charge: dict[str, Any]) -> None:
        """What happens after a charge: getting the audio, listening, and the callback."""
        try:
            path = await self._audio(charge)
            if path is not None and self._listens:
                self._heard[charge["id"]] = await self._listened(path)
        except (aiohttp.ClientError, TimeoutError):
            self._failed[charge["id"]] = _no_download(charge)
        finally:
            self._hearing.discard(charge["id"])
        await asyncio.sleep(max(0.0, charge["ready_at"] - self.clock()))
        wish = charge["wish"]
        if "webhook_url" not in wish:
            return
        headers = {wish["webhook_auth_header_name"]: wish["webhook_auth_header_value"]}
        said = {"transcript_id": charge["id"], "status": self._status(charge)}
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            for _ in range(TRIES):
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.post(wish["webhook_url"], json=said, headers=headers) as answer:
                        self.called.append(answer.status)
                        if answer.status < 300 or 400 <= answer.status < 500:
                            return
                await asyncio.sleep(self.again_s)

    @property
    def _listens(self) -> bool:
        return self.listen is not None or self.switches.tones

    async def _listened(self, path: Path) -> Hypothesis:
        if self.listen is not None:
            return await self.listen(path)
        return await asyncio.to_thread(_tones, path, self.switches.slip)

    def _kept(self, name: str) -> Path:
        """Where the audio of that name is kept to be listened to."""
        self._uploads.mkdir(exist_ok=True)
        return self._uploads / name

    async def _audio(self, charge: dict[str, Any]) -> Path | None:
        """The audio of a charge in a file: what was uploaded, or what its URL gives; None if nobody wants it."""
        parts = urlsplit(charge["audio_url"]).path.split("/")
        if parts[1:2] == ["upload"]:
            uploaded = self._uploads / parts[2]
            return uploaded if uploaded.is_file() else None
        if not self.switches.fetch:
            return None
        path, size, digest = self._kept(charge["id"]), 0, hashlib.sha256()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30)
        url = URL(charge["audio_url"], encoded=True)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
            with path.open("wb") as file:
                async for chunk in answer.content.iter_any():
                    size += len(chunk)
                    digest.update(chunk)
                    if self._listens:
                        file.write(chunk)
        came = {"status": answer.status, "content_type": answer.content_type, "bytes": size}
        self.fetched.append({"id": charge["id"], **came, "sha256": digest.hexdigest()})
        if answer.status != 200:
            raise aiohttp.ClientPayloadError(f"{answer.status} instead of audio")
        return path

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _clean_up(self, _: web.Application) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.ledger.close()


def _wrong(wish: dict[str, Any]) -> str | None:
    """What the vendor would refuse."""
    if urlsplit(str(wish.get("audio_url"))).scheme not in ("http", "https"):
        return "audio_url should start with http"
    code = wish.get("language_code")
    if code is not None and code not in [str(known.value) for known in LanguageCode]:
        return f"language_code {code} is not supported"
    if code is not None and wish.get("language_detection"):
        return "language_code and language_detection exclude each other"
    if wish.get("redact_pii") and not wish.get("redact_pii_policies"):
        return "redact_pii_policies is required"
    return None


def _scripted(url: str) -> Hypothesis:
    parts = urlsplit(url).path
    return hear("assemblyai", parts.rpartition("/")[2] if parts.startswith("/upload/") else parts)


def _tones(path: Path, slip: int) -> Hypothesis:
    """What `google_speech.bursts` hears in a recording; every `slip` words one too high, and less sure of it."""
    from tests.servers.google_speech import bursts

    words: list[Word] = []
    for chunk in chunks(path, seconds=55.0, search_s=25.0):
        for text, start_s, end_s, sure in bursts(chunk.samples, RATE):
            wrong = slip and len(words) % slip == slip - 1
            start, end = (chunk.start_ms + round(second * 1000) for second in (start_s, end_s))
            heard = f"f{int(text[1:]) + 20}" if wrong else text
            words.append(Word(heard, start, end, 0.6 if wrong else sure))
    return Hypothesis("assemblyai", tuple(words), duration_ms=chunk.start_ms + len(chunk.samples) * 1000 // RATE)


def _no_download(charge: dict[str, Any]) -> str:
    return f"Download error, unable to download {charge['audio_url']}"


def _content(wish: dict[str, Any], heard: Hypothesis) -> dict[str, Any]:
    words = [
        {
            "text": "[PERSON_NAME]" if wish.get("redact_pii") and "Dash" in word.text else word.text,
            "start": word.start_ms,
            "end": word.end_ms,
            "confidence": word.confidence,
            "speaker": "AB"[place // 12 % 2] if wish.get("speaker_labels") else None,
        }
        for place, word in enumerate(heard.words)
    ]
    return {
        "text": " ".join(word["text"] for word in words),
        "words": words,
        "confidence": heard.confidence,
        "audio_duration": (heard.duration_ms or 0) // 1000,
        "language_code": wish.get("language_code", "en_us"),
        "language_confidence": 0.97 if wish.get("language_detection") else None,
        "speech_model": None,
        "speech_model_used": "universal",
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.servers.assemblyai", description="AssemblyAI's double.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ledger", type=Path, required=True, help="file of the charges; kept if it is there")
    parser.add_argument("--key", help="the only API key that it takes; default: any")
    arguments = parser.parse_args()

    async def make() -> web.Application:
        return Server(arguments.ledger, key=arguments.key).app()

    web.run_app(make(), host=arguments.host, port=arguments.port, access_log=None, print=None)


if __name__ == "__main__":
    main()
