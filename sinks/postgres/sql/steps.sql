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
-- Without what no step changes and an upload may bring 900 kB of.
SELECT tenant_id, job_id, reference, run, status, version, filename, audio_uri, original_uri, content_type, duration_ms,
       language, priority, options, steps, reason, code, created_at, updated_at, completed_at, queued_at,
       clock_timestamp() AS db_now
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
SELECT p.* FROM provider_requests p
JOIN unnest($1::text[], $2::text[], $3::int[]) AS w (tenant_id, job_id, run) USING (tenant_id, job_id, run)
ORDER BY p.tenant_id, p.job_id, p.run, p.provider FOR UPDATE OF p;

-- name: upsert_jobs
INSERT INTO jobs (tenant_id, job_id, reference, run, status, version, filename, audio_uri, original_uri, content_type,
                  duration_ms, language, priority, options, metadata, steps, reason, code, created_at, updated_at,
                  completed_at, queued_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::text[], $6::bigint[], $7::text[], $8::text[],
                     $9::text[], $10::text[], $11::bigint[], $12::text[], $13::smallint[], $14::jsonb[], $15::jsonb[],
                     $16::jsonb[], $17::text[], $18::text[], $19::timestamptz[], $20::timestamptz[], $21::timestamptz[],
                     $22::timestamptz[])
ON CONFLICT (tenant_id, job_id) DO UPDATE SET
    run = excluded.run, status = excluded.status, version = excluded.version, original_uri = excluded.original_uri,
    content_type = excluded.content_type, duration_ms = excluded.duration_ms, language = excluded.language,
    options = excluded.options, steps = excluded.steps, reason = excluded.reason, code = excluded.code,
    updated_at = excluded.updated_at, completed_at = excluded.completed_at, queued_at = excluded.queued_at
WHERE jobs.version < excluded.version
RETURNING job_id;

-- name: replace_upload
-- What a new run of a job may bring anew: the upload that it was created for could not be read.
UPDATE jobs SET filename = $3, audio_uri = $4, priority = $5, metadata = coalesce($6, metadata)
WHERE tenant_id = $1 AND job_id = $2;

-- name: upsert_requests
INSERT INTO provider_requests (tenant_id, job_id, run, provider, state, marker, provider_id, token, hypothesis_uri,
                               confidence, word_count, language, error, submitted_at, finished_at, audio_url, audio_at,
                               claimed_until, abandoned_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
                     $9::text[], $10::float8[], $11::int[], $12::text[], $13::text[], $14::timestamptz[],
                     $15::timestamptz[], $16::text[], $17::timestamptz[], $18::timestamptz[], $19::timestamptz[])
ON CONFLICT (tenant_id, job_id, run, provider) DO UPDATE SET
    state = excluded.state, token = excluded.token, provider_id = excluded.provider_id, hypothesis_uri = excluded.hypothesis_uri,
    confidence = excluded.confidence, word_count = excluded.word_count, language = excluded.language,
    error = excluded.error, submitted_at = excluded.submitted_at, finished_at = excluded.finished_at,
    audio_url = excluded.audio_url, audio_at = excluded.audio_at,
    claimed_until = excluded.claimed_until, abandoned_at = excluded.abandoned_at;

-- name: insert_transcript
INSERT INTO transcripts (tenant_id, job_id, run, text, words, speakers, segments, language, confidence, agreement, method,
                         provider_confidences, reconciliation_notes, quality, raw_transcript_uri, agent_optimized_uri,
                         duration_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
ON CONFLICT (tenant_id, job_id, run) DO NOTHING;

-- name: upsert_files
INSERT INTO files (tenant_id, job_id, run, kind, uri, size_bytes, content_type, sha256)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[])
ON CONFLICT (tenant_id, job_id, run, kind) DO UPDATE SET
    uri = excluded.uri, size_bytes = excluded.size_bytes, content_type = excluded.content_type, sha256 = excluded.sha256;

-- name: insert_audit
INSERT INTO audit_log (tenant_id, job_id, run, step, what, duration_ms, attempt, error)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::float8[], $7::int[], $8::text[]);

-- name: insert_outbox
-- Due times count from the database's clock at this statement, after the job's row was locked: for one job they never go back.
INSERT INTO outbox (shard, due_at, event_id, topic, key, value, headers, tenant_id, job_id, run)
SELECT shard, clock_timestamp() + seconds * interval '1 second', event_id, topic, key, value, headers, tenant_id, job_id, run
FROM unnest($1::smallint[], $2::float8[], $3::uuid[], $4::text[], $5::bytea[], $6::bytea[], $7::bytea[], $8::text[],
            $9::text[], $10::int[])
    WITH ORDINALITY AS m (shard, seconds, event_id, topic, key, value, headers, tenant_id, job_id, run, position)
ORDER BY position;

-- name: cancel_scheduled
-- Take back events that lost their purpose before they were due. One that is on its way will find nothing to do.
DELETE FROM outbox WHERE event_id = ANY($1::uuid[]);

-- name: wake_relays
SELECT pg_notify('outbox_' || shard, '') FROM unnest($1::smallint[]) AS s (shard);
