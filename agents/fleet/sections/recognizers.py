"""The settings of recognizers, and of the limits that hold for providers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator

from agents.asr.outside import over_http
from agents.asr.outside.over_kafka import PREFIX, is_over_kafka, own_name
from agents.embedded import moonshine_weights
from agents.text.spelling import Spelling
from schemas.ids import Name

#: Recognizers that need no key: of two families, where there is a model of the second for this platform.
LOCAL_RECOGNIZERS = ("whisper-base", "moonshine-base.en" if moonshine_weights.supported() else "whisper-tiny.en")


def comma_list(value: Any) -> Any:
    """The parts of a text between commas; what is no text as it is."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def recognizer_names(value: Any) -> Any:
    """Names with a hyphen in place of the colon of `kafka:`; see `agents.asr.outside.over_kafka`."""
    if isinstance(value, str) and value.startswith("kafka:"):
        return PREFIX + value.removeprefix("kafka:")
    if isinstance(value, dict):
        return {recognizer_names(name): of_name for name, of_name in value.items()}
    return tuple(map(recognizer_names, value)) if isinstance(value, tuple) else value


#: Options of an upload that a recognizer outside of Concord may carry out.
OUTSIDE_OPTIONS = ("diarize", "redact_pii")


#: How a variable is written, by its field.
_EXAMPLES = {
    "whisper_models": "whisper-turbo=/models/turbo",
    "outside_options": "kafka:acme=diarize+redact_pii",
    "outside_languages": "kafka:acme=en+de",
}


def absolute(value: Path | None) -> Path | None:
    """The path without `~`, and not relative to the working directory."""
    return value.expanduser().absolute() if value is not None else None


class RecognizerSettings(BaseModel):
    """See `agents.fleet.settings.Settings`, which has these fields among others."""

    recognizers: tuple[Name, ...] = Field(
        LOCAL_RECOGNIZERS, alias="CONCORD_RECOGNIZERS", description="comma list, at least one"
    )
    tiebreaker: Name | None = Field(
        None,
        alias="CONCORD_TIEBREAKER",
        description="whisper-*, moonshine-*, google, openai, deepgram or elevenlabs: hears again where "
        "the others disagree; not one of them",
    )
    tiebreaker_s: float = Field(
        120.0,
        alias="CONCORD_TIEBREAKER_SECONDS",
        ge=0,
        le=3600,
        description="seconds of a recording that the tiebreaker may transcribe, at most",
    )
    whisper_dir: Path | None = Field(
        None, alias="WHISPER_MODEL_DIR", description="folder with one folder per local model"
    )
    whisper_models: dict[Name, Path] = Field(
        {},
        alias="WHISPER_MODELS",
        description="recognizer=folder,...: Whisper models in CTranslate2 form: whisper-turbo=/models/turbo",
    )
    whisper_device: str = Field(
        "cpu",
        alias="WHISPER_DEVICE",
        pattern="^(auto|cpu|cuda)$",
        description="where whisper-* computes: cpu, cuda, or auto (CUDA if there is a device)",
    )
    whisper_devices: tuple[Annotated[int, Field(ge=0, le=63)], ...] = Field(
        (0,), alias="WHISPER_DEVICES", min_length=1, max_length=16, description="comma list: numbers of CUDA devices"
    )
    whisper_processes: int = Field(
        1,
        alias="WHISPER_PROCESSES",
        ge=1,
        le=16,
        description="processes of each whisper-* on each device, each with a copy of the model and a recording",
    )
    whisper_compute_type: str = Field(
        "",
        alias="WHISPER_COMPUTE_TYPE",
        pattern="^(|int8|int8_float32|int8_float16|int8_bfloat16|int16|float16|bfloat16|float32)$",
        description="int8, float16, int8_float16, float32 ...; default: int8 on CPUs, float16 with CUDA",
    )
    google_endpoint: str | None = Field(
        None,
        alias="GOOGLE_SPEECH_ENDPOINT",
        pattern=r"^(http://)?[^/:\s]+:\d{1,5}$",
        description="host:port (TLS) or http://host:port (plaintext, no credentials); default: the location's",
    )
    google_project: str | None = Field(None, alias="GOOGLE_CLOUD_PROJECT", description="the project that is billed")
    google_credentials: Path | None = Field(
        None, alias="GOOGLE_APPLICATION_CREDENTIALS", description="key file for Google Speech"
    )
    google_location: str = Field("global", alias="GOOGLE_SPEECH_LOCATION", pattern="^[a-z0-9-]+$")
    google_model: str = Field("long", alias="GOOGLE_SPEECH_MODEL", min_length=1)
    google_languages: tuple[str, ...] = Field(
        ("en-US",),
        alias="GOOGLE_SPEECH_LANGUAGES",
        min_length=1,
        description="comma list: possible languages of an upload that names none",
    )
    google_bucket: str | None = Field(
        None,
        alias="GOOGLE_CLOUD_BUCKET",
        pattern=r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$",
        description="if set, whole recordings go to Google Speech through this bucket, instead of chunks",
    )
    google_storage: str | None = Field(
        None,
        alias="STORAGE_EMULATOR_HOST",
        pattern=r"^https?://[^\s@]+$",
        description="replaces Google Cloud Storage; http:// is used without credentials",
    )
    assemblyai_key: SecretStr | None = Field(
        None, alias="ASSEMBLYAI_API_KEY", description="for the recognizer assemblyai"
    )
    assemblyai_url: str | None = Field(
        None,
        alias="ASSEMBLYAI_BASE_URL",
        pattern=r"^https?://\S+$",
        description="another region (https://api.eu.assemblyai.com) or a gateway",
    )
    kafka_attempts: int = Field(
        3,
        alias="CONCORD_KAFKA_ATTEMPTS",
        ge=1,
        le=10,
        description="how often a request to kafka:* is published at most, evenly over the deadline",
    )
    outside_options: dict[Name, tuple[str, ...]] = Field(
        {},
        alias="CONCORD_RECOGNIZER_OPTIONS",
        description="recognizer=option+option,...: what kafka:* and webhook-* carry out: diarize, redact_pii",
    )
    outside_languages: dict[Name, tuple[str, ...]] = Field(
        {},
        alias="CONCORD_RECOGNIZER_LANGUAGES",
        description="recognizer=en+de,...: the languages that kafka:* and webhook-* hear; by default any",
    )
    scripted_url: str | None = Field(
        None, alias="SCRIPTED_BASE_URL", description="server of the scripted recognizers (tests)"
    )
    numbers: Spelling = Field(
        "recognizer",
        alias="CONCORD_NUMBERS",
        description="spelling of numbers on which recognizers agree: recognizer (one for the call), figures or words",
    )
    error_rates: dict[Name, Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=dict,
        alias="CONCORD_RECOGNIZER_WER",
        description="known word error rates, as google=0.08,my-model=0.2: the reconciler trusts the better more",
    )
    slots: dict[Name, int] = Field(
        {"assemblyai": 200, "deepgram": 25, "elevenlabs": 2},
        alias="CONCORD_SLOTS",
        description="recognizer=recordings,...: concurrent requests to a provider, of all workers",
    )
    rates: dict[Name, float] = Field(
        {"assemblyai": 50.0, "openai": 8.0},
        alias="CONCORD_RATES",
        description="recognizer=calls a second,...: submissions, polls, uploads and chunks, of all workers",
    )
    settles: dict[Name, float] = Field(
        {},
        alias="CONCORD_SETTLES",
        description="recognizer=seconds,...: for how long an unanswered request may still arrive (slow gateways)",
    )

    @field_validator("google_project", "google_credentials")
    @classmethod
    def _google_complete(cls, value: Any, info: ValidationInfo) -> Any:
        plain = str(info.data.get("google_endpoint")).startswith("http://")
        needed = info.field_name == "google_project" or not plain
        tiebreaker = info.data.get("tiebreaker")
        for field, names in (("RECOGNIZERS", info.data.get("recognizers", ())), ("TIEBREAKER", [tiebreaker])):
            if value is None and needed and "google" in names:
                raise ValueError(f"must be set, because CONCORD_{field} names google")
        return value

    _lists = field_validator("recognizers", "google_languages", "whisper_devices", mode="before")(comma_list)
    _names = field_validator("recognizers", mode="after")(recognizer_names)
    _paths = field_validator("whisper_dir", "google_credentials")(absolute)

    @field_validator("whisper_models")
    @classmethod
    def _folders(cls, value: dict[str, Path]) -> dict[str, Path]:
        return {name: folder.expanduser().absolute() for name, folder in value.items()}

    @field_validator(
        *("slots", "rates", "settles", "error_rates", "whisper_models", "outside_options", "outside_languages"),
        mode="before",
    )
    @classmethod
    def _limits(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if not all(equals for _, equals, _ in pairs):
            raise ValueError(f"write it as {_EXAMPLES.get(info.field_name or '', 'assemblyai=200,scripted-a=10')}")
        limits = {recognizer_names(name.strip()): limit.strip() for name, _, limit in pairs}
        several = (info.field_name or "").startswith("outside_")
        return {name: tuple(of.split("+")) for name, of in limits.items()} if several else limits

    @field_validator("slots", "rates", "settles")
    @classmethod
    def _positive(cls, value: dict[str, float]) -> dict[str, float]:
        if any(limit <= 0 for limit in value.values()):
            raise ValueError("a limit must be above 0; leave the recognizer out for none")
        return value

    @property
    def opened(self) -> tuple[str, ...]:
        """Every recognizer that is used, including the tiebreaker."""
        return (*self.recognizers, self.tiebreaker) if self.tiebreaker else self.recognizers

    def limits_of(self, name: str) -> tuple[int | None, float | None]:
        """A recognizer's slots and calls a second; those of `openai` also for `openai-...`, if that has none itself."""
        family = name.partition("-")[0]
        return self.slots.get(name, self.slots.get(family)), self.rates.get(name, self.rates.get(family))

    def recognizer_conflicts(self) -> Iterator[str]:
        """What does not fit together in the settings of recognizers."""
        if not self.recognizers or len(set(self.recognizers)) != len(self.recognizers):
            yield "CONCORD_RECOGNIZERS: name at least one recognizer, each once"
        if self.tiebreaker in self.recognizers:
            yield f"CONCORD_TIEBREAKER: {self.tiebreaker} hears everything already, as CONCORD_RECOGNIZERS says"
        yield from self._kafka_conflicts()
        yield from self._declared_conflicts()
        if others := [name for name in self.whisper_models if not name.startswith("whisper-")]:
            yield f"WHISPER_MODELS: names begin with whisper-, not {', '.join(others)}"
        if len(set(self.whisper_devices)) != len(self.whisper_devices):
            yield "WHISPER_DEVICES: name each device once; WHISPER_PROCESSES has several processes on each"
        if "assemblyai" in self.recognizers and not self.assemblyai_key:
            yield "ASSEMBLYAI_API_KEY: the recognizer assemblyai needs it"
        if self.google_bucket and not self.google_credentials and not (self.google_storage or "").startswith("http://"):
            yield "GOOGLE_CLOUD_BUCKET: GOOGLE_APPLICATION_CREDENTIALS must be set, to write to it"

    def _kafka_conflicts(self) -> Iterator[str]:
        for recognizer in filter(is_over_kafka, self.recognizers):
            try:
                name = own_name(recognizer)
            except ValueError as exc:
                yield f"CONCORD_RECOGNIZERS: {exc}"
                continue
            if name in self.recognizers:  # its public topic would be the internal one of the other
                yield f"CONCORD_RECOGNIZERS: kafka:{name} needs another name: {name} is a recognizer of Concord"

    def _declared_conflicts(self) -> Iterator[str]:
        options, languages = "CONCORD_RECOGNIZER_OPTIONS", "CONCORD_RECOGNIZER_LANGUAGES"
        for variable, declared in ((options, self.outside_options), (languages, self.outside_languages)):
            for name in declared:
                if not name.startswith((PREFIX, over_http.PREFIX)):
                    yield f"{variable}: what {name} can is known; name kafka:* and webhook-* only"
                elif name not in self.recognizers:
                    yield f"{variable}: {_written(name)} is not in CONCORD_RECOGNIZERS: add it there, or remove it here"
        for name, of in self.outside_options.items():
            if unknown := sorted({*of} - {*OUTSIDE_OPTIONS}):
                known = "+".join(OUTSIDE_OPTIONS)
                problem = f"cannot declare {', '.join(unknown)!r}; write {known}, or one of them"
                yield f"{options}: {_written(name)} {problem}"
        for name, of in self.outside_languages.items():
            if wrong := [tag for tag in of if not re.fullmatch("[a-z]{2,3}", tag)]:
                problem = "is no language: write en+de, without regions"
                yield f"{languages}: {', '.join(wrong)!r} of {_written(name)} {problem}"


def _written(name: str) -> str:
    """The recognizer's name as settings have it."""
    return f"kafka:{name.removeprefix(PREFIX)}" if is_over_kafka(name) else name
