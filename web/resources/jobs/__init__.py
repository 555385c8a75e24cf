"""What the HTTP interface shows of jobs: status, events, transcripts, recordings."""
