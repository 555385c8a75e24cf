-- name: upload_lanes
SELECT urgency, tenant_id FROM upload_lanes;

-- name: lock_limited_tenants
-- Tenants with waiting uploads and a limit of open jobs, which no other worker lets begin until the transaction ends.
SELECT tenant_id FROM account_settings
WHERE settings ? 'max_open_jobs' AND tenant_id IN (SELECT tenant_id FROM upload_lanes)
ORDER BY tenant_id FOR NO KEY UPDATE SKIP LOCKED;

-- name: room_of_tenants
-- How many jobs more each of those tenants may have open; none where another worker has the lock ($1 are those of this one).
SELECT s.tenant_id, CASE WHEN s.tenant_id = ANY($1::text[])
                         THEN greatest((s.settings->>'max_open_jobs')::int - begun.jobs - fetched.jobs, 0) ELSE 0 END AS room
FROM account_settings s
CROSS JOIN LATERAL (SELECT count(*) AS jobs FROM jobs j
                    WHERE j.tenant_id = s.tenant_id AND j.status IN ('transcribing', 'reconciling', 'persisting')) begun
CROSS JOIN LATERAL (SELECT count(*) AS jobs FROM jobs j
                    WHERE j.tenant_id = s.tenant_id AND j.status = 'uploaded' AND j.queued_at IS NULL) fetched
WHERE s.settings ? 'max_open_jobs' AND s.tenant_id IN (SELECT tenant_id FROM upload_lanes);

-- name: upload_heads
-- The next $1 of the uploads that wait: the most urgent first; among those, tenants in turn, counting what they hold ($2, $3); and of
-- each tenant the oldest. Tenants that hold their share already, or have no room for another open job ($4, $5), are left out.
SELECT l.tenant_id, q.job_id FROM upload_lanes l
LEFT JOIN unnest($2::text[], $3::int[]) AS u (tenant_id, held) USING (tenant_id)
LEFT JOIN unnest($4::text[], $5::int[]) AS r (tenant_id, room) USING (tenant_id)
CROSS JOIN LATERAL (
    SELECT job_id, queued_at, row_number() OVER (ORDER BY queued_at, job_id) AS nth FROM (
        SELECT job_id, queued_at FROM jobs
        WHERE status = 'uploaded' AND queued_at <= now() AND 9 - priority = l.urgency AND tenant_id = l.tenant_id
        ORDER BY queued_at LIMIT least($1::int, r.room)) oldest) q
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
