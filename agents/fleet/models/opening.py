"""Opens the language models that are configured."""

from __future__ import annotations

from agents.fleet.sections.models import ModelSettings
from agents.llm.protocols import Adjudicator, TextModel


def open_adjudicator(settings: ModelSettings) -> Adjudicator | None:
    """The language model that decides disputed words; None if none is configured."""
    if settings.gemini_key is None:
        return None
    from agents.llm.gemini import Gemini

    return Gemini(settings.gemini_key.get_secret_value(), settings.gemini_model, settings.gemini_url)


def open_text_model(settings: ModelSettings) -> TextModel | None:
    """The language model that answers questions about texts; None if none is configured."""
    if settings.text_provider == "openai":
        from agents.llm.texts.openai import OpenAITexts

        key = settings.openai_key.get_secret_value() if settings.openai_key else None
        return OpenAITexts(key, settings.openai_model, settings.openai_url)
    if settings.text_provider == "gemini" and settings.gemini_key is not None:
        from agents.llm.texts.gemini import GeminiTexts

        return GeminiTexts(settings.gemini_key.get_secret_value(), settings.gemini_model, settings.gemini_url)
    return None
