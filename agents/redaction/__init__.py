"""Personal data in transcripts: how they are found in words, written or spoken, and hidden in every reading. No I/O."""
