"""From the bytes of a file to samples: formats, tracks, channels, damage, limits, and chunks."""
