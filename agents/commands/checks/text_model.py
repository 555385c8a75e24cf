"""Whether the language model that summarises and titles calls is there."""

from __future__ import annotations

from agents.commands.checks.finding import Finding
from agents.fleet.models.opening import open_text_model
from agents.fleet.settings import Settings
from schemas.errors import ProviderError, Transient


async def text_model(settings: Settings) -> list[Finding]:
    """One finding; nothing is billed."""
    model = open_text_model(settings)
    if model is None:
        absent = "not configured: summaries are digests, documents have no description"
        return [Finding("text model", "ok", absent)]
    subject = f"text model {model.name}"
    prefix = model.name.partition("/")[0].upper()
    try:
        await model.check()
    except ProviderError as exc:
        return [Finding(subject, "fail", f"refused: {exc}", f"check {prefix}_API_KEY and {prefix}_MODEL")]
    except Transient as exc:
        advice = f"jobs complete without it; check the network, {prefix}_BASE_URL and your quota"
        return [Finding(subject, "warn", f"not reached: {exc}", advice)]
    finally:
        await model.close()
    return [Finding(subject, "ok", "accepts the key and has the model (nothing was billed)")]
