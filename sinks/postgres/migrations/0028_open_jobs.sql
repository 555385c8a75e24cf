-- Tenants that may have so many jobs open at once: what each of them has open is counted by indexes, however many wait.

-- A job is open once its recording no longer waits, and until its run has ended. From `transcribing` on, `jobs_of_tenant_by_status`
-- counts them.
CREATE INDEX jobs_being_fetched ON jobs (tenant_id) WHERE status = 'uploaded' AND queued_at IS NULL;

-- The urgencies and tenants of uploads whose time has come, the most urgent first: the index leads from one to the next, and to the
-- oldest of each.
CREATE VIEW upload_lanes WITH (security_invoker = true) AS
WITH RECURSIVE lanes AS (
    (SELECT 9 - priority AS urgency, tenant_id, queued_at FROM jobs WHERE status = 'uploaded' AND queued_at IS NOT NULL
     ORDER BY 9 - priority, tenant_id, queued_at LIMIT 1)
    UNION ALL
    SELECT n.urgency, n.tenant_id, n.queued_at FROM lanes l CROSS JOIN LATERAL (
        SELECT 9 - priority AS urgency, tenant_id, queued_at FROM jobs
        WHERE status = 'uploaded' AND queued_at IS NOT NULL AND (9 - priority, tenant_id) > (l.urgency, l.tenant_id)
        ORDER BY 9 - priority, tenant_id, queued_at LIMIT 1) n
)
SELECT urgency, tenant_id FROM lanes WHERE queued_at <= clock_timestamp() ORDER BY urgency, tenant_id;

GRANT SELECT ON upload_lanes TO concord_worker;
