-- name: requests
SELECT {provider_requests.columns as p} FROM provider_requests p
JOIN unnest($1::text[], $2::text[], $3::int[]) AS r (tenant_id, job_id, run) USING (tenant_id, job_id, run)
ORDER BY tenant_id, job_id, run, provider;

-- name: claim
-- The right to submit each of these that waits, until it expires. One that was claimed before is not given again: the request may
-- have been sent, and is looked for. Rows are locked in the order in which steps lock them.
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
RETURNING {provider_requests.columns as p}, EXISTS (SELECT FROM strays s WHERE s.provider = p.provider) AS strays;

-- name: doubtful
-- Requests that a person should know of: parked, or left behind by the last run that had them.
SELECT {provider_requests.columns as p} FROM provider_requests p
WHERE p.state = 'parked' OR (p.abandoned_at IS NOT NULL AND NOT EXISTS (
    SELECT FROM provider_requests n
    WHERE (n.tenant_id, n.job_id, n.provider) = (p.tenant_id, p.job_id, p.provider) AND n.run > p.run))
ORDER BY claimed_until DESC NULLS LAST LIMIT $1;

-- name: expedite_poll
-- The scheduled event of a submitted request, found by its job, becomes due, and its relay is notified. An event that is due already
-- may be in a batch and stays as it is.
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
