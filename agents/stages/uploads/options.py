"""Checks an upload's options against what the configured recognizers support: an option is never silently ignored."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.errors import UnsupportedOption
from schemas.events.audio import Options

#: By recognizer, the options that it supports; a recognizer that is not listed supports none.
Abilities = Mapping[str, frozenset[str]]


def check_options(
    options: Options, recognizers: tuple[str, ...], abilities: Abilities, enrichments: tuple[str, ...] = ()
) -> None:
    """Check that all options can be carried out.

    Redaction needs all recognizers, because the words of any one may end up in the transcript. Telling speakers apart
    needs one.

    Raises:
        UnsupportedOption: An option would be ignored. The message says what to do instead.
    """
    supported = {name: abilities.get(name, frozenset()) for name in recognizers}
    if options.redact_pii and (unable := [name for name in recognizers if "redact_pii" not in supported[name]]):
        raise UnsupportedOption(
            f"options.redact_pii: {', '.join(unable)} cannot hide personal data. Leave the option out, or have an "
            "operator set CONCORD_RECOGNIZERS to recognizers that can (assemblyai)"
        )
    if options.diarize and not any("diarize" in names for names in supported.values()):
        raise UnsupportedOption(
            f"options.diarize: {', '.join(recognizers)} cannot tell speakers apart. Leave the option out, or have an "
            "operator add a recognizer that can (assemblyai, or google with GOOGLE_CLOUD_BUCKET)"
        )
    if options.enrich and not enrichments:
        raise UnsupportedOption(
            "options.enrich: nothing is made of transcripts here. Leave the option out, or have an operator set "
            "CONCORD_ENRICHMENTS (document)"
        )
