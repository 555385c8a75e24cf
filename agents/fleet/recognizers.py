"""Recognizers and language models by their names, opened as the settings say."""

from __future__ import annotations

from collections.abc import Callable

from agents.asr.protocols import (
    ChunkedRecognizer,
    LocalRecognizer,
    Recognizer,
    RemoteRecognizer,
)
from agents.fleet.settings import Settings
from agents.llm.protocols import Adjudicator
from schemas.errors import SettingsError
from web.auth.provider_token import HEADER, token_of


def _whisper(name: str, settings: Settings) -> Recognizer:
    from agents.asr.whisper import Whisper
    from agents.embedded.weights import model_path

    model = name.removeprefix("whisper-")
    return Whisper(name, lambda: model_path(model, settings.whisper_dir, settings.cache))


def _scripted(name: str, settings: Settings) -> Recognizer:
    from agents.asr.scripted import Scripted

    return Scripted(name, settings.scripted_url)


def _google(name: str, settings: Settings) -> Recognizer:
    from agents.asr.google.speech import Speech

    key = settings.google_credentials
    speech = Speech(
        name,
        project=settings.google_project or "",
        location=settings.google_location,
        model=settings.google_model,
        languages=settings.google_languages,
        endpoint=settings.google_endpoint,
        credentials=key,
    )
    if settings.google_bucket is None:
        from agents.asr.google.recognize import Google

        return Google(speech)
    from agents.asr.google.batch_recognize import GoogleBatch
    from agents.asr.google.storage import Bucket

    return GoogleBatch(speech, Bucket(name, settings.google_bucket, endpoint=settings.google_storage, credentials=key))


def _assemblyai(name: str, settings: Settings) -> Recognizer:
    from agents.asr.assemblyai import AssemblyAI, Callback

    if settings.assemblyai_key is None:
        raise SettingsError("ASSEMBLYAI_API_KEY is not set")
    callback = None
    if settings.public_url and name in (tokens := callback_tokens(settings)):
        callback = Callback(f"{settings.public_url.rstrip('/')}/webhooks/{name}", HEADER, tokens[name])
    return AssemblyAI(name, settings.assemblyai_key.get_secret_value(), settings.assemblyai_url, callback=callback)


#: How a recognizer is opened, by its name; where that ends in `-`, by the beginning of it.
OPENERS: dict[str, Callable[[str, Settings], Recognizer]] = {
    "whisper-": _whisper,
    "scripted-": _scripted,
    "assemblyai": _assemblyai,
    "google": _google,
}


#: Recognizers that call back, if they are told where.
CALLING = frozenset({"assemblyai"})


def open_recognizer(name: str, settings: Settings, variable: str = "CONCORD_RECOGNIZERS") -> Recognizer:
    """The recognizer of that name, which is from that variable."""
    opener = OPENERS.get(name) or OPENERS.get(name.partition("-")[0] + "-")
    if opener is None:
        raise SettingsError(
            f"{variable}: there is no recognizer {name!r}; "
            "there are whisper-tiny.en, whisper-base, assemblyai, google and scripted-*"
        )
    recognizer = opener(name, settings)
    if isinstance(recognizer, RemoteRecognizer):
        recognizer.settles_s = settings.settles.get(name, recognizer.settles_s)
    return recognizer


def abilities(settings: Settings) -> dict[str, frozenset[str]]:
    """What each recognizer carries out of an upload's options. By name: intake has no keys to open them with."""
    google = {"diarize"} if settings.google_bucket else set()
    able = {"assemblyai": {"diarize", "redact_pii"}, "google": google}
    return {name: frozenset(able.get(name, ())) for name in settings.recognizers}


def callback_tokens(settings: Settings) -> dict[str, str]:
    """What each recognizer shows when it calls back; none without WEBHOOK_SECRET."""
    if settings.webhook_secret is None:
        return {}
    secret = settings.webhook_secret.get_secret_value()
    return {name: token_of(secret, name) for name in settings.recognizers if name in CALLING}


def open_adjudicator(settings: Settings) -> Adjudicator | None:
    """Who is asked about disputed words; None if nobody is configured."""
    if settings.gemini_key is None:
        return None
    from agents.llm.gemini import Gemini

    return Gemini(settings.gemini_key.get_secret_value(), settings.gemini_model, settings.gemini_url)


def open_tiebreaker(settings: Settings) -> LocalRecognizer | ChunkedRecognizer | None:
    """Who hears again what others disagree about; None if nobody is configured."""
    if settings.tiebreaker is None or not settings.tiebreaker_s:
        return None
    pieces = settings.model_copy(update={"google_bucket": None})  # what it hears is short
    recognizer = open_recognizer(settings.tiebreaker, pieces, "CONCORD_TIEBREAKER")
    if isinstance(recognizer, RemoteRecognizer):
        raise SettingsError(
            f"CONCORD_TIEBREAKER: {settings.tiebreaker} takes whole recordings only; name whisper-* or google"
        )
    return recognizer
