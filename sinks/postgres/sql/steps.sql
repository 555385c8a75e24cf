-- name: insert_inbox
-- Remember handled events; returns those that are new.
INSERT INTO inbox (stage, event_id)
SELECT * FROM unnest($1::text[], $2::uuid[]) AS e (stage, event_id)
ORDER BY stage, event_id
ON CONFLICT DO NOTHING
RETURNING stage, event_id;

-- name: forget_inbox
-- These were not handled after all: another worker has them, or their run is not known.
DELETE FROM inbox i USING unnest($1::text[], $2::uuid[]) AS e (stage, event_id)
WHERE (i.stage, i.event_id) = (e.stage, e.event_id);

-- name: lock_jobs
-- The rows of these jobs, and of those that have one of these references, locked in an order that every transaction shares.
-- Without metadata, which no step changes and of which an upload may bring 900 kB.
SELECT {jobs.columns}, clock_timestamp() AS db_now
FROM jobs j
WHERE (j.tenant_id, j.job_id) IN (
    SELECT w.tenant_id, w.job_id FROM unnest($1::text[], $2::text[]) AS w (tenant_id, job_id)
    UNION
    SELECT n.tenant_id, n.job_id FROM jobs n
    JOIN unnest($3::text[], $4::text[]) AS w (tenant_id, reference) USING (tenant_id, reference))
ORDER BY j.tenant_id, j.job_id FOR UPDATE OF j;

-- name: lock_requests
-- The provider requests of the current runs of these jobs, whose rows are locked already. Locked in the order in which `claim`
-- locks them: it changes tokens without a look at the job, and a token that was read must hold until the step is written.
SELECT {provider_requests.columns as p} FROM provider_requests p
JOIN unnest($1::text[], $2::text[], $3::int[]) AS w (tenant_id, job_id, run) USING (tenant_id, job_id, run)
ORDER BY p.tenant_id, p.job_id, p.run, p.provider FOR UPDATE OF p;

-- name: upsert_jobs
{jobs.insert}
{jobs.update}
WHERE jobs.version < excluded.version
RETURNING job_id;

-- name: replace_upload
-- What a new run of a job replaces: the upload that the job was created for could not be read.
UPDATE jobs SET filename = $3, audio_uri = $4, priority = $5, metadata = coalesce($6, metadata)
WHERE tenant_id = $1 AND job_id = $2;

-- name: upsert_requests
{provider_requests.insert}
{provider_requests.update};

-- name: insert_transcript
{transcripts.insert_one}
ON CONFLICT (tenant_id, job_id, run) DO NOTHING;

-- name: upsert_files
{files.insert}
{files.update};

-- name: insert_audit
{audit_log.insert};

-- name: cancel_scheduled
-- Remove events that lost their purpose before they were due. One that is published already will change nothing.
DELETE FROM outbox WHERE event_id = ANY($1::uuid[]);

-- name: lock_enrichments
-- Those of the current runs of these jobs, whose rows are locked already.
SELECT {enrichments.columns as e} FROM enrichments e
JOIN unnest($1::text[], $2::text[], $3::int[]) AS w (tenant_id, job_id, run) USING (tenant_id, job_id, run)
ORDER BY e.tenant_id, e.job_id, e.run, e.kind FOR UPDATE OF e;

-- name: drop_summary_items
-- Those of the summaries before.
DELETE FROM summary_items s USING unnest($1::text[], $2::text[], $3::int[]) AS w (tenant_id, job_id, run)
WHERE (s.tenant_id, s.job_id) = (w.tenant_id, w.job_id) AND s.run <= w.run;

-- name: insert_summary_items
{summary_items.insert};

-- name: upsert_enrichments
{enrichments.insert}
{enrichments.update}, revivals = 0;
