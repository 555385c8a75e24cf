"""Pure functions over words: normalise, align, decide. They use neither I/O nor clocks."""
