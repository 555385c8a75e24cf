"""Transcripts as people read them: paragraphs, captions and Markdown. Pure functions over words."""
