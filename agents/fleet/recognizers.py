"""Opens recognizers by their names, with their settings, and deletes what recognizers keep."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from pydantic import SecretStr

from agents.asr.protocols import (
    ANY,
    ChunkedRecognizer,
    ErasingRecognizer,
    Languages,
    LocalRecognizer,
    Recognizer,
    RemoteRecognizer,
    languages_of_model,
)
from agents.asr.whisper_models import checked_folder
from agents.embedded import moonshine_weights, weights
from agents.fleet.models.local import devices
from agents.fleet.settings import Settings
from schemas.errors import ProviderError, SettingsError
from web.auth.provider_token import HEADER, token_of

log = logging.getLogger(__name__)

#: What runs as Moonshine where there is no model for the platform.
SUBSTITUTE = "whisper-tiny.en"


def local_model(name: str, settings: Settings) -> tuple[str, Callable[[], Path]] | None:
    """The model that runs as this recognizer on this machine, and what finds its folder (making it, the first time;
    raises ServerError); None for recognizers elsewhere.
    """
    if name == moonshine_weights.NAME:
        if moonshine_weights.available(settings.whisper_dir, settings.cache):
            return name, partial(moonshine_weights.moonshine_path, settings.whisper_dir, settings.cache)
        name = SUBSTITUTE
    if not name.startswith("whisper-"):
        return None
    if (folder := settings.whisper_models.get(name)) is not None:
        return name, partial(checked_folder, folder)
    return name, partial(weights.model_path, name.removeprefix("whisper-"), settings.whisper_dir, settings.cache)


def _local(name: str, settings: Settings) -> Recognizer:
    from agents.asr.moonshine.recognizer import Moonshine
    from agents.asr.whisper import Whisper

    model, folder = cast("tuple[str, Callable[[], Path]]", local_model(name, settings))
    if model != name:
        log.warning("there is no model of %s for this platform: %s runs in its place", name, model)
    if model == moonshine_weights.NAME:
        return Moonshine(name, folder, reported_model=model)
    if name in settings.whisper_models:  # the operator named it: what is wrong with it is said at the start
        try:
            folder()
        except ProviderError as exc:
            raise SettingsError(f"WHISPER_MODELS: {exc}") from exc
    return Whisper(name, folder, devices(settings), reported_model=model)


def _scripted(name: str, settings: Settings) -> Recognizer:
    from agents.asr.scripted import Scripted

    return Scripted(name, settings.scripted_url)


def _outside(name: str, _: Settings) -> Recognizer:
    from agents.asr.outside.over_http import Outside

    return Outside(name)


def _over_kafka(name: str, settings: Settings) -> Recognizer:
    from agents.asr.outside.over_kafka import OverKafka

    return OverKafka(name, settings.kafka_attempts)


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

    key = _required(settings.assemblyai_key, "ASSEMBLYAI_API_KEY")
    callback = None
    if settings.public_url and name in (tokens := callback_tokens(settings)):
        callback = Callback(f"{settings.public_url.rstrip('/')}/webhooks/{name}", HEADER, tokens[name])
    return AssemblyAI(name, key, settings.assemblyai_url, callback=callback)


def _openai(name: str, settings: Settings) -> Recognizer:
    from agents.asr.pieces.openai import Transcriptions
    from agents.asr.pieces.recognizer import InPieces

    model = name.partition("-")[2] or settings.transcribe_model
    return InPieces(Transcriptions(name, settings.openai_transcription_key, model, settings.transcribe_url))


def _deepgram(name: str, settings: Settings) -> Recognizer:
    from agents.asr.pieces.deepgram import Listen
    from agents.asr.pieces.recognizer import InPieces

    key = _required(settings.deepgram_key, "DEEPGRAM_API_KEY")
    return InPieces(Listen(name, key, settings.deepgram_model, settings.deepgram_url))


def _elevenlabs(name: str, settings: Settings) -> Recognizer:
    from agents.asr.pieces.elevenlabs import ElevenLabs, Scribe

    key = _required(settings.elevenlabs_key, "ELEVENLABS_API_KEY")
    return ElevenLabs(Scribe(name, key, settings.scribe_model, settings.elevenlabs_url))


def _required(key: SecretStr | None, variable: str) -> str:
    if key is None:
        raise SettingsError(f"{variable} is not set")
    return key.get_secret_value()


def _of_google(settings: Settings) -> frozenset[str]:
    return frozenset({"diarize"} if settings.google_bucket else ())


def _heard_by_google(settings: Settings) -> Languages:
    heard = frozenset(tag.split("-", maxsplit=1)[0].lower() for tag in settings.google_languages)
    return Languages(heard, others_if_asked=True)


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of a recognizer by its name, also where there is no key to open it."""

    open: Callable[[str, Settings], Recognizer]
    #: The options of an upload that it supports.
    abilities: Callable[[Settings], frozenset[str]] = lambda _: frozenset()
    #: The languages that it hears; None: as the name of a local model says.
    languages: Callable[[Settings], Languages] | None = None
    #: Whether it can call a webhook when a request is completed.
    calls_back: bool = False
    #: The variables with its credentials, and those with its address.
    keys: str = ""
    addresses: str = ""


_SPEAKERS, _CHANNELS = frozenset({"diarize"}), frozenset({"channels"})

#: The kinds by name. One that ends in `-` is a prefix of names.
KINDS: dict[str, Kind] = {
    "whisper-": (local := Kind(_local, abilities=lambda _: _CHANNELS)),
    "moonshine-base.en": local,
    "assemblyai": Kind(
        _assemblyai,
        abilities=lambda _: frozenset({"diarize", "redact_pii"}),
        languages=lambda _: ANY,
        calls_back=True,
        keys="ASSEMBLYAI_API_KEY and ASSEMBLYAI_BASE_URL",
        addresses="ASSEMBLYAI_BASE_URL",
    ),
    "google": Kind(
        _google,
        abilities=_of_google,
        languages=_heard_by_google,
        keys="GOOGLE_APPLICATION_CREDENTIALS, GOOGLE_CLOUD_PROJECT and GOOGLE_SPEECH_LOCATION",
        addresses="GOOGLE_SPEECH_ENDPOINT and GOOGLE_SPEECH_LOCATION",
    ),
    "openai": (
        openai := Kind(
            _openai,
            languages=lambda _: ANY,
            keys="OPENAI_TRANSCRIBE_API_KEY, OPENAI_API_KEY and OPENAI_TRANSCRIBE_BASE_URL",
            addresses="OPENAI_TRANSCRIBE_BASE_URL",
        )
    ),
    "openai-": openai,
    "deepgram": Kind(
        _deepgram,
        abilities=lambda _: _SPEAKERS,
        languages=lambda _: ANY,
        keys="DEEPGRAM_API_KEY and DEEPGRAM_BASE_URL",
        addresses="DEEPGRAM_BASE_URL",
    ),
    "elevenlabs": Kind(
        _elevenlabs,
        abilities=lambda _: _SPEAKERS,
        languages=lambda _: ANY,
        keys="ELEVENLABS_API_KEY and ELEVENLABS_BASE_URL",
        addresses="ELEVENLABS_BASE_URL",
    ),
    "webhook-": Kind(_outside),
    "kafka-": Kind(_over_kafka),
    "scripted-": Kind(_scripted),
}


def kind_of(name: str) -> Kind | None:
    """The kind of the recognizer with this name, if there is one."""
    return KINDS.get(name) or KINDS.get(name.partition("-")[0] + "-")


def open_recognizer(name: str, settings: Settings, variable: str = "CONCORD_RECOGNIZERS") -> Recognizer:
    """The recognizer of that name, which the environment variable `variable` contains.

    Raises:
        SettingsError: There is no such recognizer, or a setting that it needs is missing.
    """
    if (kind := kind_of(name)) is None:
        known = ", ".join(f"{name}*" if name.endswith("-") else name for name in KINDS).replace("kafka-", "kafka:")
        raise SettingsError(f"{variable}: there is no recognizer {name!r}; there are {known}")
    recognizer = kind.open(name, settings)
    if isinstance(recognizer, RemoteRecognizer):
        recognizer.settles_s = settings.settles.get(name, recognizer.settles_s)
    return recognizer


def abilities(settings: Settings) -> dict[str, frozenset[str]]:
    """By recognizer, the options of an upload that it supports. Not asked of the recognizers themselves, because intake
    does not have the keys to open them. Those outside of Concord support what the settings declare.
    """
    kinds, declared = {name: kind_of(name) for name in settings.recognizers}, settings.outside_options
    known = {name: kind.abilities(settings) if kind else frozenset() for name, kind in kinds.items()}
    return {name: of | {*declared.get(name, ())} for name, of in known.items()}


def languages(settings: Settings) -> dict[str, Languages]:
    """By recognizer, the languages that it hears. Not asked of the recognizers themselves: the stage of one has not the
    keys to open the others.
    """
    tellers = {name: kind.languages if (kind := kind_of(name)) else None for name in settings.recognizers}
    known = {name: tell(settings) if tell else languages_of_model(name) for name, tell in tellers.items()}
    return known | {name: Languages(frozenset(of)) for name, of in settings.outside_languages.items()}


def callback_tokens(settings: Settings) -> dict[str, str]:
    """By recognizer, the token that authenticates its callbacks; empty without WEBHOOK_SECRET."""
    if settings.webhook_secret is None:
        return {}
    secret = settings.webhook_secret.get_secret_value()
    names = (name for name in settings.recognizers if (kind := kind_of(name)) and kind.calls_back)
    return {name: token_of(secret, name) for name in names}


def open_tiebreaker(settings: Settings) -> LocalRecognizer | ChunkedRecognizer | None:
    """The recognizer that transcribes disputed intervals again; None if none is configured.

    Raises:
        SettingsError: There is no such recognizer, or it cannot transcribe clips.
    """
    if settings.tiebreaker is None or not settings.tiebreaker_s:
        return None
    for_clips = settings.model_copy(update={"google_bucket": None})  # they are short, and need no upload
    recognizer = open_recognizer(settings.tiebreaker, for_clips, "CONCORD_TIEBREAKER")
    if not isinstance(recognizer, LocalRecognizer | ChunkedRecognizer):
        raise SettingsError(
            f"CONCORD_TIEBREAKER: {settings.tiebreaker} takes whole recordings only; "
            "name whisper-*, moonshine-base.en, google, openai, deepgram or elevenlabs"
        )
    return recognizer


@dataclass
class ProviderCopies:
    """`agents.upkeep.deleting.Copies` for the configured recognizers, each opened when it is first needed."""

    settings: Settings
    _opened: dict[str, Recognizer] = field(default_factory=dict)

    async def erase(self, provider: str, copy: Mapping[str, Any]) -> str | None:
        """Delete what this recognizer keeps of a request; the reason if something stays, else None.

        Raises:
            SettingsError: This process does not know the recognizer any more, or has no key for it.
            Transient, ProviderError: It could not be deleted now.
        """
        if provider not in self._opened:
            self._opened[provider] = open_recognizer(provider, self.settings)
        recognizer = self._opened[provider]
        if not isinstance(recognizer, ErasingRecognizer):
            return "it has no way to delete a request, and keeps it as its terms say"
        if "id" not in copy and "url" not in copy:
            return "it may have a request whose answer was lost, and of which only the recognizer knows"
        return await recognizer.erase(copy.get("id"), copy.get("url"))

    async def close(self) -> None:
        """Close what was opened."""
        for recognizer in self._opened.values():
            await recognizer.close()
