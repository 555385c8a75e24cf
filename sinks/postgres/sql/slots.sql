-- name: lock_slots
-- One transaction at a time gives out slots of this provider. (Workers of all versions use this name for the lock.)
SELECT pg_advisory_xact_lock(hashtext('concord places ' || $1));

-- name: slots_in_use
-- How many requests of each tenant hold a slot: under way, perhaps under way, or admitted and about to be.
SELECT tenant_id, count(*)::int AS requests FROM (
    SELECT tenant_id FROM provider_requests WHERE provider = $1 AND state IN ('intended', 'submitted')
    UNION ALL
    SELECT tenant_id FROM provider_requests
    WHERE provider = $1 AND state = 'waiting' AND admitted_at IS NOT NULL
) AS p GROUP BY tenant_id;

-- name: slot_queue_exists
SELECT EXISTS (SELECT FROM provider_requests WHERE provider = $1 AND state = 'waiting' AND queued_at IS NOT NULL AND admitted_at IS NULL);

-- name: slot_requests
-- These requests in the order in which they may get a slot, and whether they hold one (placed).
SELECT p.tenant_id, p.job_id, p.run, 9 - j.priority AS urgency,
       p.state <> 'waiting' OR p.admitted_at IS NOT NULL AS placed
FROM provider_requests p JOIN jobs j USING (tenant_id, job_id)
JOIN unnest($2::text[], $3::text[], $4::int[]) WITH ORDINALITY AS w (tenant_id, job_id, run, position)
    ON (p.tenant_id, p.job_id, p.run) = (w.tenant_id, w.job_id, w.run) AND p.provider = $1
ORDER BY urgency, position;

-- name: take_slots
-- These requests get a slot ($5) or are queued. Rows are locked in the order in which steps lock them, here and below; all in one
-- statement, because a second one in the same transaction would begin that order again.
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

-- name: slot_queue_heads
-- The next $2 in the queue: the most urgent first; among those, tenants in turn, counting what they have under way ($3, $4); and of
-- each tenant the oldest. The index leads from tenant to tenant, so that the cost does not grow with the queue.
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

-- name: grant_slots
-- These get a slot, and their events, which were put off, become due. One whose event is not in the outbox yet is left for a later
-- call.
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

-- name: count_queued
SELECT (SELECT count(*)::int FROM provider_requests
        WHERE provider = $1 AND state = 'waiting' AND queued_at IS NOT NULL AND admitted_at IS NULL) AS queued,
       (SELECT count(*)::int FROM provider_requests WHERE provider = $1 AND state = 'parked') AS parked;

-- name: provider_state
SELECT failures, CASE WHEN paused_until > clock_timestamp() THEN paused_until END AS paused_until FROM providers WHERE provider = $1;
