"""Checks an upload's options against what the configured recognizers support: an option is never silently ignored."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.accounts.redaction import LANGUAGES
from schemas.errors import UnsupportedOption
from schemas.events.audio import Options

#: By recognizer, the options that it supports; a recognizer that is not listed supports none.
Abilities = Mapping[str, frozenset[str]]

#: Abilities of which each may tell speakers apart: by labels, or by hearing the channels of a recording apart.
SPEAKERS = frozenset({"diarize", "channels"})


def check_options(
    options: Options,
    recognizers: tuple[str, ...],
    abilities: Abilities,
    enrichments: tuple[str, ...] = (),
    language: str = "auto",
    *,
    has_voices: bool = False,
) -> None:
    """Check that all options can be carried out.

    Redaction is our own, in the languages that it knows; in any other, all recognizers must do it, because the words of
    any one may end up in the transcript. Telling speakers apart needs a voice model (`has_voices`) or one recognizer
    that can; one that hears channels apart is enough until the recording turns out to have one.

    Raises:
        UnsupportedOption: An option would be ignored. The message says what to do instead.
    """
    supported = {name: abilities.get(name, frozenset()) for name in recognizers}
    if options.redact_pii and language != "auto":
        check_redaction(language, all("redact_pii" in names for names in supported.values()))
    if options.redact and not options.redact_pii:
        raise UnsupportedOption("options.redact: says what becomes of what is not redacted; set redact_pii, too")
    if options.speakers is not None and not options.diarize:
        raise UnsupportedOption("options.speakers: says how many speakers are told apart; set diarize, too")
    if options.diarize and not has_voices and not any(names & SPEAKERS for names in supported.values()):
        raise UnsupportedOption(
            f"options.diarize: {', '.join(recognizers)} cannot tell speakers apart. Leave the option out, or have an "
            "operator install the voice model (`make install`), or add a recognizer that can (assemblyai, deepgram, "
            "elevenlabs, google with GOOGLE_CLOUD_BUCKET, or your own, declared in CONCORD_RECOGNIZER_OPTIONS)"
        )
    if options.mail_to and ("mail" not in enrichments or options.enrich is False):
        raise UnsupportedOption(
            "options.mail_to: no mail is sent of this recording. Leave the option and `enrich: false` out, or have an "
            "operator set SMTP_HOST, and add report and mail to CONCORD_ENRICHMENTS"
        )
    if options.enrich and not enrichments:
        raise UnsupportedOption(
            "options.enrich: nothing is made of transcripts here. Leave the option out, or have an operator set "
            "CONCORD_ENRICHMENTS (document)"
        )


def check_redaction(language: str | None, redacted_by_recognizers: bool) -> None:
    """Check that personal data can be hidden in a recording in this language (BCP 47; None if nobody knows it, and then
    it is taken for English).

    Raises:
        UnsupportedOption: They would be found in part only.
    """
    if redacted_by_recognizers or language is None or language.replace("_", "-").split("-")[0].lower() in LANGUAGES:
        return
    raise UnsupportedOption(
        f"options.redact_pii: personal data are not found in the language {language}, only in "
        f"{', '.join(sorted(LANGUAGES))}. Leave the option out, or have an operator set CONCORD_RECOGNIZERS to "
        "recognizers that hide them by themselves (assemblyai)"
    )
