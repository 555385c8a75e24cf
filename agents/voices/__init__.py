"""Who speaks when in a recording, by the sound of the voices."""
