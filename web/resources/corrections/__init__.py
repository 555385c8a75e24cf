"""What people change in transcripts over HTTP: edits, their versions, and the review queue."""
