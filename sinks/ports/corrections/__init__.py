"""The ports of corrections: versions of transcripts, and the review queue."""
