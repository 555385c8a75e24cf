"""Whether conversations of voice agents can be processed: the provider, and what is made of them."""

from __future__ import annotations

from agents.commands.checks.finding import Finding, Level
from agents.conversations.client import ElevenLabs
from agents.fleet.settings import Settings
from schemas.errors import ProviderError, RateLimited, SettingsError, Transient

_SUBJECT = "conversations"


async def conversations(settings: Settings) -> list[Finding]:
    """A finding about ElevenLabs, and one for each thing that is missing."""
    key = settings.elevenlabs_key
    if key is None:
        return [Finding(_SUBJECT, "ok", "not configured: ELEVENLABS_API_KEY has those of ElevenLabs' agents processed")]
    try:
        client = ElevenLabs(key.get_secret_value(), settings.elevenlabs_url)
    except SettingsError as exc:
        return [Finding(_SUBJECT, "fail", str(exc), "workers do not start with it: correct it")]
    advice = "requests for conversations are refused until then; see README, Conversations"
    # The key may be there for the recognizer alone.
    level: Level = "warn" if "elevenlabs" in settings.opened else "fail"
    lacking = [Finding(_SUBJECT, level, sentence, advice) for sentence in settings.lacks_for_conversations]
    try:
        await client.check()
    except RateLimited as exc:
        return [Finding(_SUBJECT, "warn", str(exc), "it answers: try again later"), *lacking]
    except ProviderError as exc:
        advice = "check ELEVENLABS_API_KEY: it needs to read conversations (convai_read)"
        return [Finding(_SUBJECT, level, f"refused: {exc}", advice), *lacking]
    except Transient as exc:
        advice = "conversations wait for a day; check the network and ELEVENLABS_BASE_URL"
        return [Finding(_SUBJECT, "fail", f"not reached: {exc}", advice), *lacking]
    finally:
        await client.close()
    return [Finding(_SUBJECT, "ok", "ElevenLabs accepts the key, and lists conversations"), *lacking]
