-- Uploads whose recordings wait for a place to be fetched: who is next is found by the index, however many wait.

ALTER TABLE jobs ADD COLUMN queued_at timestamptz;
CREATE INDEX jobs_queue ON jobs ((9 - priority), tenant_id, queued_at) WHERE status = 'uploaded' AND queued_at IS NOT NULL;
