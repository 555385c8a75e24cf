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
-- These requests get a slot ($5) or are queued, each a microsecond after the one before: times tell their order. Rows are locked in the order in which steps lock them, here and below; all in one
-- statement, because a second one in the same transaction would begin that order again.
WITH locked AS (
    SELECT p.*, 9 - j.priority AS urgent, w.placed, statement_timestamp() + w.nth * interval '1 microsecond' AS at
    FROM provider_requests p
    JOIN unnest($2::text[], $3::text[], $4::int[], $5::bool[]) WITH ORDINALITY AS w (tenant_id, job_id, run, placed, nth)
        USING (tenant_id, job_id, run)
    JOIN jobs j USING (tenant_id, job_id)
    WHERE p.provider = $1 AND p.state = 'waiting' ORDER BY p.tenant_id, p.job_id, p.run FOR UPDATE OF p
)
UPDATE provider_requests p
SET admitted_at = CASE WHEN l.placed THEN l.at ELSE p.admitted_at END,
    urgency = l.urgent,
    queued_at = CASE WHEN l.placed THEN p.queued_at ELSE coalesce(p.queued_at, l.at) END
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
-- call. Their times are in their order here.
WITH due AS (
    UPDATE outbox o SET due_at = clock_timestamp()
    FROM unnest($2::text[], $3::text[]) AS w (tenant_id, job_id)
    WHERE o.tenant_id = w.tenant_id AND o.job_id = w.job_id AND o.topic = $4 AND o.due_at > clock_timestamp()
    RETURNING o.shard, o.tenant_id, o.job_id, o.run
), locked AS (
    SELECT p.*, statement_timestamp() + w.nth * interval '1 microsecond' AS at
    FROM provider_requests p JOIN (SELECT DISTINCT tenant_id, job_id, run FROM due) d USING (tenant_id, job_id, run)
    JOIN unnest($2::text[], $3::text[]) WITH ORDINALITY AS w (tenant_id, job_id, nth) USING (tenant_id, job_id)
    WHERE p.provider = $1 AND p.state = 'waiting' AND p.admitted_at IS NULL
    ORDER BY p.tenant_id, p.job_id, p.run FOR UPDATE OF p
), admitted AS (
    UPDATE provider_requests p SET admitted_at = l.at
    FROM locked l WHERE (p.tenant_id, p.job_id, p.run, p.provider) = (l.tenant_id, l.job_id, l.run, l.provider)
)
SELECT pg_notify('outbox_' || shard, '') FROM (SELECT DISTINCT shard FROM due) AS shards;

-- name: slot_standby
-- Requests that have a slot and have not begun, the last one first. (A worker of an earlier version notes no urgency of some.)
SELECT tenant_id, job_id, run, coalesce(urgency, 4) AS urgency FROM provider_requests
WHERE provider = $1 AND state = 'waiting' AND admitted_at IS NOT NULL AND submitted_at IS NULL
ORDER BY coalesce(urgency, 4) DESC, admitted_at DESC LIMIT 1000;

-- name: overtake_slots
-- Each request of ($3, $4) takes the slot of that of ($5, $6, $7), if its event was put off, and becomes due, and the other has not
-- begun. That one is queued again, at its old place. All rows are locked in one statement, in the order in which steps lock them.
WITH pairs AS (
    SELECT * FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::int[], $8::int[])
        WITH ORDINALITY AS w (first_tenant, first_job, tenant_id, job_id, run, urgency, nth)
), due AS (
    UPDATE outbox o SET due_at = clock_timestamp() FROM pairs w
    WHERE o.tenant_id = w.first_tenant AND o.job_id = w.first_job AND o.topic = $2 AND o.due_at > clock_timestamp()
    RETURNING o.shard, o.tenant_id, o.job_id, o.run, w.nth
), locked AS (
    SELECT p.tenant_id, p.job_id, p.run, p.admitted_at, w.nth, w.urgency
    FROM provider_requests p JOIN (
        SELECT DISTINCT tenant_id, job_id, run, nth, NULL::int AS urgency FROM due
        UNION ALL SELECT tenant_id, job_id, run, nth, urgency FROM pairs
    ) AS w USING (tenant_id, job_id, run)
    WHERE p.provider = $1 AND p.state = 'waiting' AND p.submitted_at IS NULL
      AND (p.admitted_at IS NOT NULL) = (w.urgency IS NOT NULL)
    ORDER BY p.tenant_id, p.job_id, p.run FOR UPDATE OF p
), swapped AS (
    UPDATE provider_requests p
    SET admitted_at = CASE WHEN l.urgency IS NULL THEN statement_timestamp() + l.nth * interval '1 microsecond' END,
        queued_at = coalesce(p.queued_at, p.admitted_at), urgency = coalesce(l.urgency, p.urgency)
    FROM locked l
    WHERE (p.tenant_id, p.job_id, p.run) = (l.tenant_id, l.job_id, l.run) AND p.provider = $1
      AND l.nth IN (SELECT nth FROM locked GROUP BY nth HAVING count(*) = 2)
)
SELECT pg_notify('outbox_' || shard, '') FROM (SELECT DISTINCT shard FROM due) AS shards;

-- name: begin_request
UPDATE provider_requests SET submitted_at = coalesce(submitted_at, clock_timestamp())
WHERE (tenant_id, job_id, run, provider) = ($2, $3, $4, $1) AND state = 'waiting'
  AND (admitted_at IS NOT NULL OR queued_at IS NULL)
RETURNING run;

-- name: slot_queue_position
-- The place of a request ($2, $3, $4) in the order of slot_queue_heads, at most $5: no part reads more rows than that. Those that
-- have a slot and have not begun are before, the most urgent first.
WITH RECURSIVE me AS (
    SELECT tenant_id, coalesce(urgency, 4) AS urgency, queued_at, admitted_at FROM provider_requests
    WHERE (tenant_id, job_id, run, provider) = ($2, $3, $4, $1) AND state = 'waiting' AND submitted_at IS NULL
      AND (queued_at IS NOT NULL OR admitted_at IS NOT NULL)
), standby AS (
    SELECT coalesce(urgency, 4) AS urgency, admitted_at FROM provider_requests
    WHERE provider = $1 AND state = 'waiting' AND admitted_at IS NOT NULL AND submitted_at IS NULL LIMIT $5
), in_use AS (
    SELECT tenant_id, count(*)::int AS requests FROM (
        SELECT tenant_id FROM provider_requests WHERE provider = $1 AND state IN ('intended', 'submitted')
        UNION ALL
        SELECT tenant_id FROM provider_requests WHERE provider = $1 AND state = 'waiting' AND admitted_at IS NOT NULL
    ) AS p GROUP BY tenant_id
), mine AS (
    SELECT count(*)::int + 1 + coalesce((SELECT requests FROM in_use JOIN me USING (tenant_id)), 0) AS nth FROM (
        SELECT FROM provider_requests p, me
        WHERE p.provider = $1 AND p.state = 'waiting' AND p.queued_at IS NOT NULL AND p.admitted_at IS NULL
          AND p.urgency = me.urgency AND p.tenant_id = me.tenant_id AND p.queued_at < me.queued_at LIMIT $5) AS older
), lanes AS (
    (SELECT p.tenant_id FROM provider_requests p, me
     WHERE p.provider = $1 AND p.state = 'waiting' AND p.queued_at IS NOT NULL AND p.admitted_at IS NULL AND p.urgency = me.urgency
     ORDER BY p.tenant_id LIMIT 1)
    UNION ALL
    SELECT n.tenant_id FROM lanes l CROSS JOIN LATERAL (
        SELECT p.tenant_id FROM provider_requests p, me
        WHERE p.provider = $1 AND p.state = 'waiting' AND p.queued_at IS NOT NULL AND p.admitted_at IS NULL
          AND p.urgency = me.urgency AND p.tenant_id > l.tenant_id
        ORDER BY p.tenant_id LIMIT 1) n
), before AS (
    SELECT FROM (
        SELECT FROM provider_requests p, me
        WHERE p.provider = $1 AND p.state = 'waiting' AND p.queued_at IS NOT NULL AND p.admitted_at IS NULL
          AND p.urgency < me.urgency LIMIT $5) AS urgent
    UNION ALL
    SELECT FROM (
        SELECT FROM me, mine, lanes l LEFT JOIN in_use u USING (tenant_id) CROSS JOIN LATERAL (
            SELECT queued_at, row_number() OVER (ORDER BY queued_at) AS nth FROM (
                SELECT p.queued_at FROM provider_requests p
                WHERE p.provider = $1 AND p.state = 'waiting' AND p.queued_at IS NOT NULL AND p.admitted_at IS NULL
                  AND p.urgency = me.urgency AND p.tenant_id = l.tenant_id
                ORDER BY p.queued_at LIMIT greatest(0, mine.nth - coalesce(u.requests, 0))) oldest) q
        WHERE (coalesce(u.requests, 0) + q.nth, q.queued_at) < (mine.nth, me.queued_at) LIMIT $5) AS in_turn
)
SELECT least($5, CASE
    WHEN me.admitted_at IS NOT NULL THEN (
        SELECT count(*) FROM standby s WHERE (s.urgency, s.admitted_at) <= (me.urgency, me.admitted_at))
    ELSE 1 + (SELECT count(*) FROM standby) + (SELECT count(*) FROM before) END)::int AS position
FROM me;

-- name: count_queued
SELECT (SELECT count(*)::int FROM provider_requests
        WHERE provider = $1 AND state = 'waiting' AND queued_at IS NOT NULL AND admitted_at IS NULL) AS queued,
       (SELECT count(*)::int FROM provider_requests WHERE provider = $1 AND state = 'parked') AS parked;

-- name: provider_state
SELECT failures, CASE WHEN paused_until > clock_timestamp() THEN paused_until END AS paused_until FROM providers WHERE provider = $1;
