-- Transcripts of before there was a search index are indexed in the background, and a schedule may be carried out once.

-- Those that are left, so that looking for them costs nothing once there are none. While CONCORD_ENRICHMENTS has no `index`, every
-- completed job is in it. (Making it reads a million jobs, for some seconds, in which nothing is written to `jobs`.)
CREATE INDEX jobs_never_indexed ON jobs (tenant_id, created_at DESC, job_id)
    WHERE status = 'completed' AND NOT enrichment ? 'index' AND options->>'enrich' IS DISTINCT FROM 'false';

-- A schedule without a time is carried out once; then its turn never comes again.
ALTER TABLE schedules ALTER COLUMN cron DROP NOT NULL, ALTER COLUMN turn_at DROP NOT NULL;
