-- name: jobs
SELECT * FROM jobs WHERE job_id = ANY($1::text[]);

-- name: requests
SELECT p.* FROM provider_requests p
JOIN unnest($1::text[], $2::int[]) AS r (job_id, run) USING (job_id, run) ORDER BY job_id, run, provider;

-- name: claim
-- The right to submit each of these: from nobody, or from a holder whose time ran out. Says what each request was before. Rows are
-- locked in the order in which steps write them.
WITH before AS (
    SELECT p.job_id, p.run, p.provider, p.state FROM provider_requests p
    JOIN unnest($1::text[], $2::int[], $3::text[]) AS w (job_id, run, provider) USING (job_id, run, provider)
    WHERE state IN ('waiting', 'intended') AND (claimed_until IS NULL OR claimed_until < clock_timestamp())
    ORDER BY job_id, provider
    FOR UPDATE OF p
)
UPDATE provider_requests p
SET state = 'intended', token = p.token + 1, claimed_until = clock_timestamp() + $4 * interval '1 second'
FROM before
WHERE p.job_id = before.job_id AND p.run = before.run AND p.provider = before.provider
RETURNING p.*, before.state = 'intended' AS resumed;

-- name: unclaim
UPDATE provider_requests SET claimed_until = NULL
WHERE job_id = $1 AND run = $2 AND provider = $3 AND token = $4 AND state = 'intended';

-- name: requests_by_name
SELECT p.* FROM provider_requests p
JOIN unnest($1::text[], $2::int[], $3::text[]) AS w (job_id, run, provider) USING (job_id, run, provider);

-- name: hasten
-- The scheduled event of a submitted request, found by its job's key, becomes due; its relay is told. What is due already may be in
-- a batch and is left alone. The LIKE is the condition of the index outbox_asked.
WITH due AS (
    UPDATE outbox o SET due_at = clock_timestamp()
    FROM provider_requests p
    WHERE p.provider = $1 AND p.provider_id = $2 AND p.state = 'submitted'
      AND o.key = convert_to(p.job_id, 'UTF8') AND o.topic = $3 AND o.topic LIKE 'asr.requests.%'
      AND o.due_at > clock_timestamp()
    RETURNING o.shard
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
INSERT INTO adjudications (tenant_id, question, job_id, run, judge, choice, fault)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::text[], $6::int[], $7::text[])
ON CONFLICT (tenant_id, question) DO UPDATE
SET job_id = excluded.job_id, run = excluded.run, judge = excluded.judge, choice = excluded.choice,
    fault = excluded.fault, at = excluded.at
WHERE adjudications.fault IS NOT NULL;

-- name: sweep_adjudications
-- Answers are only saved money: after a while nobody asks the same again. In slices.
DELETE FROM adjudications WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM adjudications WHERE at < now() - $1 * interval '1 day' LIMIT 20000));

-- name: now
SELECT clock_timestamp();

-- name: sweep_inbox
-- Forget events that Kafka itself has forgotten, in slices.
DELETE FROM inbox WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM inbox WHERE at < now() - $1 * interval '1 day' LIMIT 20000));

-- name: sweep_leases
DELETE FROM leases WHERE until < now() - interval '1 day';

-- name: idle
SELECT NOT EXISTS (SELECT FROM jobs WHERE status NOT IN ('completed', 'failed'))
   AND NOT EXISTS (SELECT FROM outbox WHERE due_at < now() + interval '5 seconds');
