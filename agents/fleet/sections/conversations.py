"""The settings of conversations of voice agents."""

from __future__ import annotations

from pydantic import BaseModel, Field, SecretStr


class ConversationSettings(BaseModel):
    """See `agents.fleet.settings.Settings`, which has these fields among others."""

    elevenlabs_key: SecretStr | None = Field(
        None,
        alias="ELEVENLABS_API_KEY",
        min_length=1,
        description="conversations of ElevenLabs' agents are fetched when this is set, summarised and mailed; also "
        "for the recognizer elevenlabs",
    )
    elevenlabs_url: str | None = Field(
        None,
        alias="ELEVENLABS_BASE_URL",
        pattern=r"^https?://[^\s@]+$",
        description="another region (https://api.eu.residency.elevenlabs.io) or a gateway",
    )
    conversation_audio_mb: int = Field(
        10,
        alias="CONCORD_CONVERSATION_AUDIO_MB",
        ge=1,
        le=2048,
        description="largest recording of a conversation, unless the account's settings say otherwise",
    )
    conversation_rate: float = Field(
        10.0,
        alias="CONCORD_CONVERSATION_RATE",
        gt=0,
        le=1000,
        description="calls a second of ElevenLabs' API about conversations, of all workers together",
    )
    conversation_wait_s: float = Field(
        86_400.0,
        alias="CONCORD_CONVERSATION_WAIT_S",
        ge=0,
        le=604_800,
        description="seconds for which a conversation is waited for that has not ended",
    )
