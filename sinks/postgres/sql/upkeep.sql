-- name: stuck_jobs
-- Open jobs that have not changed for long and for which nothing waits in the outbox. A recognizer's request has a topic of its own;
-- all else of a stage is on the topics $4.
SELECT j.tenant_id, j.job_id, j.reference, j.run, j.status, j.version, j.filename, j.audio_uri, j.original_uri,
       j.content_type, j.duration_ms, j.language, j.priority, j.options, j.steps, j.reason, j.code, j.queued_at, j.created_at,
       j.updated_at, j.completed_at, q.providers, q.without_deadline, CASE WHEN r.version = j.version THEN r.times ELSE 0 END AS times
FROM jobs j
LEFT JOIN revivals r USING (tenant_id, job_id)
CROSS JOIN LATERAL (
    SELECT array(
        SELECT p.provider FROM provider_requests p
        WHERE (p.tenant_id, p.job_id, p.run) = (j.tenant_id, j.job_id, j.run) AND j.status = 'transcribing'
          AND p.state IN ('waiting', 'intended', 'parked', 'submitted')
          AND NOT EXISTS (SELECT FROM outbox o WHERE (o.tenant_id, o.job_id) = (j.tenant_id, j.job_id)
                          AND o.topic = 'asr.requests.' || p.provider)
        ORDER BY p.provider) AS providers,
    j.status = 'transcribing' AND NOT EXISTS (
        SELECT FROM outbox o WHERE (o.tenant_id, o.job_id, o.topic) = (j.tenant_id, j.job_id, 'reconcile.due') AND o.run = j.run
    ) AS without_deadline) q
WHERE j.status = $1 AND j.status NOT IN ('completed', 'failed') AND j.updated_at < $2
  AND (r.at IS NULL OR r.at < $2)
  AND CASE WHEN j.status = 'transcribing' THEN cardinality(q.providers) > 0 OR q.without_deadline
           ELSE NOT EXISTS (SELECT FROM outbox o WHERE (o.tenant_id, o.job_id) = (j.tenant_id, j.job_id)
                            AND o.topic = ANY($4::text[]) AND o.run = j.run) END
ORDER BY j.updated_at LIMIT $3;

-- name: note_revivals
INSERT INTO revivals AS r (tenant_id, job_id, version, times)
SELECT tenant_id, job_id, version, 1 FROM unnest($1::text[], $2::text[], $3::bigint[]) AS w (tenant_id, job_id, version)
ON CONFLICT (tenant_id, job_id) DO UPDATE
SET times = CASE WHEN r.version = excluded.version THEN r.times + 1 ELSE 1 END, version = excluded.version, at = excluded.at;

-- name: intend_blobs
INSERT INTO blob_intents (tenant_id, job_id, uri)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS w (tenant_id, job_id, uri) ORDER BY uri
ON CONFLICT (uri) DO UPDATE SET at = excluded.at;

-- name: settle_blobs
-- These are referred to now; those of refused steps ($2) are orphans unless somebody else's step refers to them.
WITH refused AS (
    UPDATE blob_intents SET at = '-infinity' WHERE uri = ANY($2::text[]) AND NOT uri = ANY($1::text[])
)
DELETE FROM blob_intents WHERE uri = ANY($1::text[]);

-- name: orphan_blobs
SELECT i.uri, EXISTS (SELECT FROM files f WHERE (f.tenant_id, f.job_id, f.uri) = (i.tenant_id, i.job_id, i.uri)) AS wanted
FROM blob_intents i LEFT JOIN jobs j USING (tenant_id, job_id)
WHERE i.at < clock_timestamp() - interval '1 second' * $1::float8
  AND (i.at = '-infinity' OR i.at < clock_timestamp() - interval '1 second' * $2::float8 OR j.status <> 'uploaded')
ORDER BY i.at LIMIT $3;

-- name: forget_blobs
DELETE FROM blob_intents WHERE uri = ANY($1::text[]);

-- name: unended_requests
-- Requests of runs that have ended, of which it is not known how they ended: they may have been charged.
SELECT p.tenant_id, p.job_id, p.run, p.provider, p.state, p.marker, p.provider_id, p.submitted_at
FROM provider_requests p JOIN jobs j USING (tenant_id, job_id)
WHERE (p.state IN ('intended', 'parked', 'submitted') AND (p.run < j.run OR j.status IN ('completed', 'failed')))
   OR (p.abandoned_at IS NOT NULL AND p.provider_id IS NULL AND p.run = j.run)
ORDER BY p.tenant_id, p.job_id, p.run, p.provider LIMIT $1;

-- name: without_transcript
-- Jobs that are completed and have no transcript.
SELECT j.tenant_id, j.job_id, j.run, j.completed_at FROM jobs j
WHERE j.status = 'completed'
  AND NOT EXISTS (SELECT FROM transcripts t WHERE (t.tenant_id, t.job_id, t.run) = (j.tenant_id, j.job_id, j.run))
ORDER BY j.tenant_id, j.job_id LIMIT $1;

-- name: known_blobs
-- What jobs refer to: their files, and the blobs that their rows name.
SELECT w.tenant_id, w.job_id, j.status, j.run,
       array(SELECT f.uri FROM files f WHERE (f.tenant_id, f.job_id) = (w.tenant_id, w.job_id)) AS files,
       array_remove(ARRAY[j.audio_uri, j.original_uri], NULL) AS named
FROM unnest($1::text[], $2::text[]) AS w (tenant_id, job_id) LEFT JOIN jobs j USING (tenant_id, job_id);

-- name: files_after
-- Every stored file, a page at a time.
SELECT tenant_id, job_id, run, kind, uri FROM files WHERE (tenant_id, job_id, run, kind) > ($1, $2, $3, $4)
ORDER BY tenant_id, job_id, run, kind LIMIT $5;
