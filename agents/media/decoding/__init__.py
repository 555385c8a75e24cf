"""From a file's bytes to sound: formats, tracks, channels, and what is damaged."""
