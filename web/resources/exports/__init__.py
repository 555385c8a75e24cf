"""A job as files for people: transcripts in several formats, the report, and a mail with it."""
