-- name: upload_lanes
-- The urgencies and tenants of waiting uploads, the most urgent first: the index leads from one to the next.
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
-- These wait no more, and their events, which were put off, become due. Rows that another worker admits at this moment are skipped. Rows are locked in the order in which steps lock them.
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
