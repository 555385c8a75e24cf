-- What tenants may set: how many of their jobs are open at once, which indexes count however many wait, and how long their audit log is
-- kept.

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

-- Entries of the audit log are kept as long as their tenant wants: the oldest ones of each are found without a look at the others.
CREATE INDEX audit_log_by_age ON audit_log (tenant_id, at);

-- Tenants with entries that are older than they want, or than `days` where they have set nothing, and the time before which those are.
CREATE FUNCTION expiring_entries(days float8) RETURNS TABLE (tenant_id text, before timestamptz) LANGUAGE sql STABLE AS $$
    WITH RECURSIVE oldest AS (
        (SELECT a.tenant_id, a.at FROM audit_log a ORDER BY a.tenant_id, a.at LIMIT 1)
        UNION ALL
        SELECT n.tenant_id, n.at FROM oldest o CROSS JOIN LATERAL (
            SELECT a.tenant_id, a.at FROM audit_log a WHERE a.tenant_id > o.tenant_id ORDER BY a.tenant_id, a.at LIMIT 1) n
    )
    SELECT o.tenant_id, l.before FROM oldest o LEFT JOIN account_settings s USING (tenant_id)
    CROSS JOIN LATERAL (SELECT now() - coalesce((s.settings->>'audit_days')::float8, days) * interval '1 day' AS before) l
    WHERE o.at < l.before
$$;
