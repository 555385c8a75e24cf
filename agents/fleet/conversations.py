"""The worker's part of conversations of voice agents: what is served over HTTP, and the looks at agents' lists."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from agents.conversations.client import ElevenLabs
from agents.fleet.fleet import Fleet
from agents.runtime.failpoints import passing
from agents.stages.uploads.asked import AskedConversations
from agents.stages.uploads.conversations import ConversationRequests
from agents.upkeep.agent_lists import AgentLists
from sinks.postgres.conversations.history import PostgresConversationHistory
from web.connections.bounds import Bounds
from web.connections.caller_limit import CallerLimit
from web.resources.conversations.accounts import AccountConversations
from web.resources.conversations.hints import ConversationHints
from web.resources.conversations.postprocess import Postprocess
from web.resources.conversations.urls import FileUrls
from web.route import Resource


def _asked(fleet: Fleet) -> AskedConversations:
    lacks = fleet.settings.lacks_for_conversations
    return AskedConversations(fleet.database, ConversationRequests(fleet.accounts, lacks))


def conversation_resources(fleet: Fleet, bounds: Bounds) -> list[Resource]:
    """Conversations that are asked for and listed, and ElevenLabs' webhooks where their secret is known."""
    settings, asked = fleet.settings, _asked(fleet)
    streams = CallerLimit("files of conversations", bounds.blob_streams)
    urls = FileUrls(fleet.store, fleet.database, settings.public_url)
    resources: list[Resource] = [
        Postprocess(fleet.reader, fleet.store, asked, urls, streams),
        AccountConversations(PostgresConversationHistory(fleet.reader), fleet.database),
    ]
    if (secret := settings.elevenlabs_webhook_secret) is not None:
        resources.append(ConversationHints(asked, fleet.database, secret))
    return resources


def agent_lists(fleet: Fleet, stack: contextlib.AsyncExitStack) -> dict[str, Callable[[], Awaitable[None]]]:
    """What finds conversations that nobody asks for, by name; none where they are not processed. `stack` closes it."""
    settings = fleet.settings
    if settings.elevenlabs_key is None or settings.lacks_for_conversations:
        return {}
    key = settings.elevenlabs_key.get_secret_value()
    client = ElevenLabs(key, settings.elevenlabs_url, rate=fleet.conversation_limiter())
    stack.push_async_callback(client.close)
    lists = AgentLists(fleet.database, client, _asked(fleet), settings.agent_list_s, passing)
    return {"looking at agents' conversations": lists.run}
