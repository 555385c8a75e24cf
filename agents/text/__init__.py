"""Pure functions over words: normalise, align, decide, redact. No I/O, no clock."""
