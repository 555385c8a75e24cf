"""What an upload may ask for, held against what the configured recognizers can do: done, or refused, never ignored."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.errors import UnsupportedOption
from schemas.events.audio import Options

#: Which options each recognizer carries out, by its name; the others carry out none.
Abilities = Mapping[str, frozenset[str]]


def check_options(
    options: Options, recognizers: tuple[str, ...], abilities: Abilities, enrichments: tuple[str, ...] = ()
) -> None:
    """Raises UnsupportedOption for what would be ignored, with what to do instead.

    Hiding personal data needs every recognizer: what one of them writes down may stand in the result. Telling speakers
    apart needs one.
    """
    able = {name: abilities.get(name, frozenset()) for name in recognizers}
    if options.redact_pii and (unable := [name for name in recognizers if "redact_pii" not in able[name]]):
        raise UnsupportedOption(
            f"options.redact_pii: {', '.join(unable)} cannot hide personal data. Leave the option out, or have an "
            "operator set CONCORD_RECOGNIZERS to recognizers that can (assemblyai)"
        )
    if options.diarize and not any("diarize" in can for can in able.values()):
        raise UnsupportedOption(
            f"options.diarize: {', '.join(recognizers)} cannot tell speakers apart. Leave the option out, or have an "
            "operator add a recognizer that can (assemblyai, or google with GOOGLE_CLOUD_BUCKET)"
        )
    if options.enrich and not enrichments:
        raise UnsupportedOption(
            "options.enrich: nothing is made of transcripts here. Leave the option out, or have an operator set "
            "CONCORD_ENRICHMENTS (document)"
        )
