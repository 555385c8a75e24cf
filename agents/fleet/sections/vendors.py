"""The settings of vendors that are asked in pieces: OpenAI's protocol, Deepgram, ElevenLabs (its key and address are in
`conversations`).
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, Field, SecretStr

_URL = r"^https?://[^\s@]+$"
_MODEL = r"^[\w./:@-]{1,200}$"


class VendorSettings(BaseModel):
    """See `agents.fleet.settings.Settings`, which has these fields among others."""

    transcribe_model: str = Field(
        "whisper-1",
        alias="OPENAI_TRANSCRIBE_MODEL",
        pattern=_MODEL,
        description="of the recognizer openai; openai-<model> names one itself",
    )
    transcribe_url: str | None = Field(
        None,
        alias="OPENAI_TRANSCRIBE_BASE_URL",
        pattern=_URL,
        description="recognizers' server with OpenAI's protocol, as http://host:8000/v1; texts have OPENAI_BASE_URL",
    )
    transcribe_key: SecretStr | None = Field(
        None,
        alias="OPENAI_TRANSCRIBE_API_KEY",
        description="that server's key; default: OPENAI_API_KEY, if texts are asked of the same server",
    )
    deepgram_key: SecretStr | None = Field(None, alias="DEEPGRAM_API_KEY", description="for the recognizer deepgram")
    deepgram_model: str = Field("nova-3", alias="DEEPGRAM_MODEL", pattern=_MODEL)
    deepgram_url: str | None = Field(
        None,
        alias="DEEPGRAM_BASE_URL",
        pattern=_URL,
        description="another region (https://api.eu.deepgram.com), or own",
    )
    scribe_model: str = Field("scribe_v2", alias="ELEVENLABS_SCRIBE_MODEL", pattern=_MODEL)

    def transcription_key(self, texts_key: SecretStr | None, texts_url: str | None) -> str | None:
        """The key for transcription. That of texts is for their server only: it is sent to no other."""
        key = self.transcribe_key or (texts_key if texts_url == self.transcribe_url else None)
        return key.get_secret_value() if key else None

    def vendor_conflicts(
        self, opened: tuple[str, ...], openai_key: str | None, elevenlabs_key: SecretStr | None
    ) -> Iterator[str]:
        """What the recognizers that are used need, and is not set."""
        if not openai_key and not self.transcribe_url:
            for name in opened:
                if name.partition("-")[0] == "openai":
                    yield f"OPENAI_TRANSCRIBE_API_KEY or OPENAI_API_KEY: the recognizer {name} needs one"
        if "deepgram" in opened and not self.deepgram_key:
            yield "DEEPGRAM_API_KEY: the recognizer deepgram needs it"
        if "elevenlabs" in opened and not elevenlabs_key:
            yield "ELEVENLABS_API_KEY: the recognizer elevenlabs needs it"
