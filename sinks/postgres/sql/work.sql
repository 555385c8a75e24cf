-- name: jobs
-- Without their metadata, which may be large.
SELECT tenant_id, job_id, reference, run, status, version, filename, audio_uri, original_uri, content_type, duration_ms,
       language, priority, options, steps, reason, code, created_at, updated_at, completed_at, queued_at
FROM jobs JOIN unnest($1::text[], $2::text[]) AS w (tenant_id, job_id) USING (tenant_id, job_id);

-- name: metadata
SELECT metadata FROM jobs WHERE tenant_id = $1 AND job_id = $2;

-- name: named
-- The jobs that have this id, and those that have this reference, with the number of the question.
WITH w AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS w (tenant_id, job_id, reference, number)
)
SELECT w.number, j.tenant_id, j.job_id, j.reference, j.run, j.status, j.version, j.filename, j.audio_uri, j.original_uri,
       j.content_type, j.duration_ms, j.language, j.priority, j.options, j.steps, j.reason, j.code, j.created_at, j.updated_at,
       j.completed_at, j.queued_at
FROM w JOIN jobs j ON (j.tenant_id, j.job_id) = (w.tenant_id, w.job_id)
UNION ALL
SELECT w.number, j.tenant_id, j.job_id, j.reference, j.run, j.status, j.version, j.filename, j.audio_uri, j.original_uri,
       j.content_type, j.duration_ms, j.language, j.priority, j.options, j.steps, j.reason, j.code, j.created_at, j.updated_at,
       j.completed_at, j.queued_at
FROM w JOIN jobs j ON (j.tenant_id, j.reference) = (w.tenant_id, w.reference) AND j.job_id <> w.job_id;

-- name: requests
SELECT p.* FROM provider_requests p
JOIN unnest($1::text[], $2::text[], $3::int[]) AS r (tenant_id, job_id, run) USING (tenant_id, job_id, run)
ORDER BY tenant_id, job_id, run, provider;

-- name: claim
-- The right to submit each of these that waits, until it runs out. One that was claimed before is not given again: it may have been
-- sent, and is looked for. Rows are locked in the order in which steps lock them.
WITH waiting AS (
    SELECT p.tenant_id, p.job_id, p.run, p.provider FROM provider_requests p
    JOIN unnest($1::text[], $2::text[], $3::int[], $4::text[]) AS w (tenant_id, job_id, run, provider)
        USING (tenant_id, job_id, run, provider)
    WHERE state = 'waiting'
    ORDER BY tenant_id, job_id, run, provider
    FOR UPDATE OF p
)
UPDATE provider_requests p
SET state = 'intended', token = p.token + 1, claimed_until = clock_timestamp() + $5 * interval '1 second'
FROM waiting w
WHERE (p.tenant_id, p.job_id, p.run, p.provider) = (w.tenant_id, w.job_id, w.run, w.provider)
RETURNING p.*, EXISTS (SELECT FROM strays s WHERE s.provider = p.provider) AS strays;

-- name: doubtful
-- Requests that a person should know of: parked, or left behind by the last run that had them.
SELECT p.* FROM provider_requests p
WHERE p.state = 'parked' OR (p.abandoned_at IS NOT NULL AND NOT EXISTS (
    SELECT FROM provider_requests n
    WHERE (n.tenant_id, n.job_id, n.provider) = (p.tenant_id, p.job_id, p.provider) AND n.run > p.run))
ORDER BY claimed_until DESC NULLS LAST LIMIT $1;

-- name: drop_known_strays
DELETE FROM strays s USING provider_requests p WHERE p.provider = s.provider AND p.provider_id = s.provider_id AND s.provider = $1;

-- name: strays
SELECT * FROM strays WHERE provider = $1 ORDER BY provider_id;

-- name: keep_strays
-- Those that no row knows. Lists of URLs come as JSON: unnest would take arrays of arrays apart.
INSERT INTO strays (provider, provider_id, created, urls, marker)
SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::jsonb[], $5::text[]) AS w (provider, provider_id, created, urls, marker)
WHERE NOT EXISTS (SELECT FROM provider_requests p WHERE p.provider = w.provider AND p.provider_id = w.provider_id)
ON CONFLICT (provider, provider_id) DO UPDATE SET created = excluded.created
RETURNING *;

-- name: forget_stray
DELETE FROM strays WHERE provider = $1 AND provider_id = $2 RETURNING provider_id;

-- name: expedite_poll
-- The scheduled event of a submitted request, found by its job, becomes due; its relay is told. What is due already may be in a
-- batch and is left alone.
WITH due AS (
    UPDATE outbox o SET due_at = clock_timestamp()
    FROM provider_requests p
    WHERE p.provider = $1 AND p.provider_id = $2 AND p.state = 'submitted'
      AND o.tenant_id = p.tenant_id AND o.job_id = p.job_id AND o.topic = $3 AND o.due_at > clock_timestamp()
    RETURNING o.shard
)
SELECT pg_notify('outbox_' || shard, '') FROM due;

-- name: expedite_job
-- The same for a request of any state, by its job.
WITH due AS (
    UPDATE outbox SET due_at = clock_timestamp()
    WHERE tenant_id = $1 AND job_id = $2 AND topic = $3 AND due_at > clock_timestamp()
    RETURNING shard
)
SELECT pg_notify('outbox_' || shard, '') FROM due;

-- name: lease
-- Take a lease that is free or ran out, or renew one's own.
INSERT INTO leases (key, holder, until) VALUES ($1, $2, clock_timestamp() + $3 * interval '1 second')
ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, until = excluded.until
WHERE leases.holder = excluded.holder OR leases.until < clock_timestamp()
RETURNING key;

-- name: release
DELETE FROM leases WHERE key = $1 AND holder = $2;

-- name: record_usage
INSERT INTO usage (tenant_id, job_id, run, provider, unit, ref, quantity)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::float8[])
ON CONFLICT DO NOTHING;

-- name: adjudications
SELECT * FROM adjudications
WHERE tenant_id = $1 AND question = ANY($4::text[]) AND (fault IS NULL OR (job_id = $2 AND run = $3))
ORDER BY question;

-- name: keep_adjudications
-- Rows come in the order of the key, so that two writers of the same questions do not wait for each other in a circle.
INSERT INTO adjudications (tenant_id, question, job_id, run, adjudicator, choice, fault)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::text[], $6::int[], $7::text[])
ON CONFLICT (tenant_id, question) DO UPDATE
SET job_id = excluded.job_id, run = excluded.run, adjudicator = excluded.adjudicator, choice = excluded.choice,
    fault = excluded.fault, at = excluded.at
WHERE adjudications.fault IS NOT NULL;

-- name: now
SELECT clock_timestamp();

-- name: idle
SELECT NOT EXISTS (SELECT FROM jobs WHERE status NOT IN ('completed', 'failed'))
   AND NOT EXISTS (SELECT FROM outbox WHERE due_at < now() + interval '5 seconds');

-- name: job_idle
SELECT NOT EXISTS (SELECT FROM jobs WHERE (tenant_id, job_id) = ($1, $2) AND status NOT IN ('completed', 'failed'))
   AND NOT EXISTS (SELECT FROM outbox WHERE (tenant_id, job_id) = ($1, $2) AND due_at < now() + interval '5 seconds');

-- name: open_jobs
-- A tenant's jobs that have not ended, by id.
SELECT tenant_id, job_id FROM jobs
WHERE tenant_id = $1 AND status = ANY($2::text[]) AND status NOT IN ('completed', 'failed') AND job_id > $3
ORDER BY job_id LIMIT $4;
