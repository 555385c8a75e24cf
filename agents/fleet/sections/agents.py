"""The settings of how conversations are found that nobody asks for, and of how long they are kept."""

from __future__ import annotations

from pydantic import BaseModel, Field, SecretStr


class AgentSettings(BaseModel):
    """See `agents.fleet.settings.Settings`, which has these fields among others."""

    elevenlabs_webhook_secret: SecretStr | None = Field(
        None,
        alias="ELEVENLABS_WEBHOOK_SECRET",
        min_length=1,
        description="the secret of ElevenLabs' post-call webhook, which is then taken at /webhooks/elevenlabs",
    )
    agent_list_s: float = Field(
        300.0,
        alias="CONCORD_AGENT_LIST_S",
        ge=10,
        le=86_400,
        description="seconds between two looks at the conversations of each agent in accounts' settings",
    )
    conversation_files_days: float = Field(
        90.0,
        alias="CONCORD_CONVERSATION_FILES_DAYS",
        ge=1,
        le=36_500,
        description="days for which files of conversations are kept, unless those of all jobs are kept for less",
    )
    conversation_failed_days: float = Field(
        30.0,
        alias="CONCORD_CONVERSATION_FAILED_DAYS",
        ge=1,
        le=36_500,
        description="the same for conversations that have failed, with everything",
    )
