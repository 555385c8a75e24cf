"""What is said: events, topics, the job's state machine, words and errors. No I/O."""
