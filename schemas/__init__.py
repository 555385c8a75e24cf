"""The data model: events, topics, the job's state machine, transcripts and errors. No I/O."""
