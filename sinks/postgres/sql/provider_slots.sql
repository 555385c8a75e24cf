-- name: lock_places
-- Whoever gives places at this provider does so alone, until the end of the transaction.
SELECT pg_advisory_xact_lock(hashtext('concord places ' || $1));

-- name: under_way
-- Requests of each tenant that hold a place: under way, perhaps under way, or admitted and about to be.
SELECT tenant_id, count(*)::int AS requests FROM (
    SELECT tenant_id FROM provider_requests WHERE provider = $1 AND state IN ('intended', 'submitted')
    UNION ALL
    SELECT tenant_id FROM provider_requests
    WHERE provider = $1 AND state = 'waiting' AND admitted_at IS NOT NULL
) AS p GROUP BY tenant_id;

-- name: is_queue
SELECT EXISTS (SELECT FROM provider_requests WHERE provider = $1 AND state = 'waiting' AND queued_at IS NOT NULL AND admitted_at IS NULL);

-- name: wants
-- What these requests are, in the order in which they may have a place.
SELECT p.tenant_id, p.job_id, p.run, 9 - j.priority AS urgency,
       p.state <> 'waiting' OR p.admitted_at IS NOT NULL AS placed
FROM provider_requests p JOIN jobs j USING (tenant_id, job_id)
JOIN unnest($2::text[], $3::text[], $4::int[]) WITH ORDINALITY AS w (tenant_id, job_id, run, position)
    ON (p.tenant_id, p.job_id, p.run) = (w.tenant_id, w.job_id, w.run) AND p.provider = $1
ORDER BY urgency, position;

-- name: take_places
-- These have a place ($5) or are in the queue. Rows are locked in the order in which steps lock them, here and below; all in one
-- statement, because a second one in the same transaction would begin that order anew.
WITH locked AS (
    SELECT p.*, 9 - j.priority AS urgent, w.placed FROM provider_requests p
    JOIN unnest($2::text[], $3::text[], $4::int[], $5::bool[]) AS w (tenant_id, job_id, run, placed)
        USING (tenant_id, job_id, run)
    JOIN jobs j USING (tenant_id, job_id)
    WHERE p.provider = $1 AND p.state = 'waiting' ORDER BY p.tenant_id, p.job_id, p.run FOR UPDATE OF p
)
UPDATE provider_requests p
SET admitted_at = CASE WHEN l.placed THEN clock_timestamp() ELSE p.admitted_at END,
    urgency = CASE WHEN l.placed THEN p.urgency ELSE l.urgent END,
    queued_at = CASE WHEN l.placed THEN p.queued_at ELSE coalesce(p.queued_at, clock_timestamp()) END
FROM locked l WHERE (p.tenant_id, p.job_id, p.run, p.provider) = (l.tenant_id, l.job_id, l.run, l.provider);

-- name: heads
-- The next $2 in the queue: the most urgent first; among those, tenants in turn, counting what they have under way ($3, $4); and of
-- each tenant the oldest. It goes from tenant to tenant by the index, so that it costs the same however many wait.
WITH RECURSIVE lanes AS (
    (SELECT urgency, tenant_id FROM provider_requests
     WHERE provider = $1 AND state = 'waiting' AND queued_at IS NOT NULL AND admitted_at IS NULL
     ORDER BY urgency, tenant_id LIMIT 1)
    UNION ALL
    SELECT n.urgency, n.tenant_id FROM lanes l CROSS JOIN LATERAL (
        SELECT urgency, tenant_id FROM provider_requests
        WHERE provider = $1 AND state = 'waiting' AND queued_at IS NOT NULL AND admitted_at IS NULL
          AND (urgency, tenant_id) > (l.urgency, l.tenant_id)
        ORDER BY urgency, tenant_id LIMIT 1) n
)
SELECT l.tenant_id, q.job_id, l.urgency FROM lanes l
LEFT JOIN unnest($3::text[], $4::int[]) AS u (tenant_id, requests) USING (tenant_id)
CROSS JOIN LATERAL (
    SELECT job_id, queued_at, row_number() OVER (ORDER BY queued_at) AS nth FROM (
        SELECT job_id, queued_at FROM provider_requests
        WHERE provider = $1 AND state = 'waiting' AND queued_at IS NOT NULL AND admitted_at IS NULL
          AND urgency = l.urgency AND tenant_id = l.tenant_id
        ORDER BY queued_at LIMIT $2) oldest) q
ORDER BY l.urgency, coalesce(u.requests, 0) + q.nth, q.queued_at LIMIT $2;

-- name: admit
-- These have a place. Their events, which were put off, become due. One whose event is not there yet is admitted the next time.
WITH due AS (
    UPDATE outbox o SET due_at = clock_timestamp()
    FROM unnest($2::text[], $3::text[]) AS w (tenant_id, job_id)
    WHERE o.tenant_id = w.tenant_id AND o.job_id = w.job_id AND o.topic = $4 AND o.due_at > clock_timestamp()
    RETURNING o.shard, o.tenant_id, o.job_id, o.run
), locked AS (
    SELECT p.* FROM provider_requests p JOIN (SELECT DISTINCT tenant_id, job_id, run FROM due) d USING (tenant_id, job_id, run)
    WHERE p.provider = $1 AND p.state = 'waiting' AND p.admitted_at IS NULL
    ORDER BY p.tenant_id, p.job_id, p.run FOR UPDATE OF p
), admitted AS (
    UPDATE provider_requests p SET admitted_at = clock_timestamp()
    FROM locked l WHERE (p.tenant_id, p.job_id, p.run, p.provider) = (l.tenant_id, l.job_id, l.run, l.provider)
)
SELECT pg_notify('outbox_' || shard, '') FROM (SELECT DISTINCT shard FROM due) AS shards;

-- name: queued
SELECT (SELECT count(*)::int FROM provider_requests
        WHERE provider = $1 AND state = 'waiting' AND queued_at IS NOT NULL AND admitted_at IS NULL) AS queued,
       (SELECT count(*)::int FROM provider_requests WHERE provider = $1 AND state = 'parked') AS parked;

-- name: reserve_calls
-- Moments for $2 calls, $3 seconds apart, none before the provider's pause is over: seconds until the first of them.
INSERT INTO providers AS p (provider, next_at) VALUES ($1, clock_timestamp() + $2::int * $3::float8 * interval '1 second')
ON CONFLICT (provider) DO UPDATE
SET next_at = greatest(p.next_at, p.paused_until, clock_timestamp()) + $2::int * $3::float8 * interval '1 second'
RETURNING greatest(extract(epoch FROM next_at - clock_timestamp()) - $2::int * $3::float8, 0)::float8;

-- name: space_calls
-- The same for calls that are about to be made, in a line of their own, if the first moment is within $4 seconds; else nothing is taken.
INSERT INTO providers AS p (provider, next_at)
VALUES ($1 || ' line', clock_timestamp() + $2::int * $3::float8 * interval '1 second')
ON CONFLICT (provider) DO UPDATE
SET next_at = greatest(p.next_at, clock_timestamp()) + $2::int * $3::float8 * interval '1 second'
WHERE p.next_at <= clock_timestamp() + $4::float8 * interval '1 second'
RETURNING greatest(extract(epoch FROM next_at - clock_timestamp()) - $2::int * $3::float8, 0)::float8;

-- name: provider_failed
-- As sinks.ports.provider_slots.pause_s has it: the pause that the provider asked for ($2), and from the $3rd failure in a row on one that doubles
-- up to $4 seconds. What fails within a pause is not counted.
INSERT INTO providers AS p (provider, failures, paused_until)
VALUES ($1, 1, clock_timestamp() + coalesce($2::float8, 0) * interval '1 second')
ON CONFLICT (provider) DO UPDATE
SET failures = p.failures + CASE WHEN p.paused_until > clock_timestamp() THEN 0 ELSE 1 END,
    paused_until = greatest(p.paused_until, clock_timestamp() + interval '1 second' * greatest($2::float8,
        CASE WHEN p.paused_until > clock_timestamp() OR p.failures + 1 < $3 THEN 0
             ELSE least($4::float8, 2 ^ least(p.failures + 1 - $3, 30)) END));

-- name: provider_worked
UPDATE providers SET failures = 0 WHERE provider = $1 AND failures > 0;

-- name: provider_state
SELECT failures, CASE WHEN paused_until > clock_timestamp() THEN paused_until END AS paused_until FROM providers WHERE provider = $1;

-- name: upload_lanes
-- The urgencies and tenants of uploads that wait for a place to be fetched, the most urgent first: by the index from one to the next.
WITH RECURSIVE lanes AS (
    (SELECT 9 - priority AS urgency, tenant_id FROM jobs WHERE status = 'uploaded' AND queued_at IS NOT NULL
     ORDER BY 9 - priority, tenant_id LIMIT 1)
    UNION ALL
    SELECT n.urgency, n.tenant_id FROM lanes l CROSS JOIN LATERAL (
        SELECT 9 - priority AS urgency, tenant_id FROM jobs
        WHERE status = 'uploaded' AND queued_at IS NOT NULL AND (9 - priority, tenant_id) > (l.urgency, l.tenant_id)
        ORDER BY 9 - priority, tenant_id LIMIT 1) n
)
SELECT urgency, tenant_id FROM lanes ORDER BY urgency, tenant_id;

-- name: upload_heads
-- The next $1 of them: the most urgent first; among those, tenants in turn, counting what they hold ($2, $3); and of each tenant the
-- oldest. Tenants that hold their share already are left out.
WITH RECURSIVE lanes AS (
    (SELECT 9 - priority AS urgency, tenant_id FROM jobs WHERE status = 'uploaded' AND queued_at IS NOT NULL
     ORDER BY 9 - priority, tenant_id LIMIT 1)
    UNION ALL
    SELECT n.urgency, n.tenant_id FROM lanes l CROSS JOIN LATERAL (
        SELECT 9 - priority AS urgency, tenant_id FROM jobs
        WHERE status = 'uploaded' AND queued_at IS NOT NULL AND (9 - priority, tenant_id) > (l.urgency, l.tenant_id)
        ORDER BY 9 - priority, tenant_id LIMIT 1) n
)
SELECT l.tenant_id, q.job_id FROM lanes l
LEFT JOIN unnest($2::text[], $3::int[]) AS u (tenant_id, held) USING (tenant_id)
CROSS JOIN LATERAL (
    SELECT job_id, queued_at, row_number() OVER (ORDER BY queued_at, job_id) AS nth FROM (
        SELECT job_id, queued_at FROM jobs
        WHERE status = 'uploaded' AND queued_at IS NOT NULL AND 9 - priority = l.urgency AND tenant_id = l.tenant_id
        ORDER BY queued_at LIMIT $1::int) oldest) q
WHERE coalesce(u.held, 0) < $1::int
ORDER BY l.urgency, coalesce(u.held, 0) + q.nth, q.queued_at LIMIT $1::int;

-- name: admit_uploads
-- These have a place: they wait no more, and their events, which were put off, become due. Those that another worker admits at this
-- moment are left to it. Rows are locked in the order in which steps lock them.
WITH locked AS (
    SELECT j.tenant_id, j.job_id FROM jobs j
    JOIN unnest($1::text[], $2::text[]) AS w (tenant_id, job_id) USING (tenant_id, job_id)
    WHERE j.status = 'uploaded' AND j.queued_at IS NOT NULL
    ORDER BY j.tenant_id, j.job_id FOR UPDATE OF j SKIP LOCKED
), admitted AS (
    UPDATE jobs j SET queued_at = NULL FROM locked l WHERE (j.tenant_id, j.job_id) = (l.tenant_id, l.job_id)
    RETURNING j.tenant_id, j.job_id
), due AS (
    UPDATE outbox o SET due_at = clock_timestamp() FROM admitted a
    WHERE o.tenant_id = a.tenant_id AND o.job_id = a.job_id AND o.topic = $3 AND o.due_at > clock_timestamp()
    RETURNING o.shard
), woken AS (
    SELECT pg_notify('outbox_' || shard, '') FROM (SELECT DISTINCT shard FROM due) AS shards
)
SELECT tenant_id, job_id, (SELECT count(*) FROM woken) FROM admitted ORDER BY tenant_id, job_id;

-- name: register_worker
-- The process $2 has the role $1 for $3 seconds; how many have it.
WITH gone AS (
    DELETE FROM leases WHERE starts_with(key, $1 || '/') AND until < clock_timestamp() - interval '1 minute'
), mine AS (
    INSERT INTO leases (key, holder, until) VALUES ($1 || '/' || $2, $2, clock_timestamp() + $3 * interval '1 second')
    ON CONFLICT (key) DO UPDATE SET until = excluded.until RETURNING key
)
SELECT 1 + count(*) FROM leases
WHERE starts_with(key, $1 || '/') AND until > clock_timestamp() AND key <> (SELECT key FROM mine);
