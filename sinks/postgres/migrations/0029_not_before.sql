-- Before when a job's run must not begin, as its upload says. Until then it waits in the queue of uploads: `queued_at` is that time.
ALTER TABLE jobs ADD COLUMN not_before timestamptz;
