-- name: lock_retention
-- Held until the transaction ends: one worker deletes old rows at a time.
SELECT pg_try_advisory_xact_lock(hashtext('concord retention'));

-- name: expire_inbox
WITH gone AS (
    DELETE FROM inbox WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM inbox WHERE at < now() - $1::float8 * interval '1 day' ORDER BY at LIMIT $2))
    RETURNING 1)
SELECT count(*) FROM gone;

-- name: expire_adjudications
WITH gone AS (
    DELETE FROM adjudications WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM adjudications WHERE at < now() - $1::float8 * interval '1 day' ORDER BY at LIMIT $2))
    RETURNING 1)
SELECT count(*) FROM gone;

-- name: expire_audit_log
-- By number, which rises with time: the table needs no index for this.
WITH gone AS (
    DELETE FROM audit_log WHERE id = ANY(ARRAY(
        SELECT id FROM (SELECT id, at FROM audit_log ORDER BY id LIMIT $2) AS oldest
        WHERE at < now() - $1::float8 * interval '1 day'))
    RETURNING 1)
SELECT count(*) FROM gone;

-- name: expire_leases
WITH gone AS (
    DELETE FROM leases WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM leases WHERE until < now() - $1::float8 * interval '1 day' LIMIT $2))
    RETURNING 1)
SELECT count(*) FROM gone;

-- name: expire_api_usage_metrics
WITH gone AS (
    DELETE FROM api_usage_metrics WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM api_usage_metrics WHERE minute < now() - $1::float8 * interval '1 day' ORDER BY minute LIMIT $2))
    RETURNING 1)
SELECT count(*) FROM gone;

-- name: expire_idempotency_keys
WITH gone AS (
    DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM idempotency_keys
        WHERE created_at < now() - $1::float8 * interval '1 day' ORDER BY created_at LIMIT $2))
    RETURNING 1)
SELECT count(*) FROM gone;

-- name: expire_direct_uploads
WITH gone AS (
    DELETE FROM direct_uploads WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM direct_uploads WHERE created_at < now() - $1::float8 * interval '1 day' ORDER BY created_at LIMIT $2))
    RETURNING 1)
SELECT count(*) FROM gone;

-- name: expire_usage
WITH gone AS (
    DELETE FROM usage WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM usage WHERE at < now() - $1::float8 * interval '1 day' ORDER BY at LIMIT $2))
    RETURNING 1)
SELECT count(*) FROM gone;

-- name: expire_outbox_refused
-- By number, as of the outbox: the table is small.
WITH gone AS (
    DELETE FROM outbox_refused WHERE id = ANY(ARRAY(
        SELECT id FROM outbox_refused WHERE refused_at < now() - $1::float8 * interval '1 day' ORDER BY id LIMIT $2))
    RETURNING 1)
SELECT count(*) FROM gone;

-- name: expired_files
SELECT job_id FROM jobs
WHERE tenant_id = $1 AND completed_at < now() - $2::float8 * interval '1 day' AND original_uri IS NOT NULL
ORDER BY completed_at LIMIT $3;

-- name: expired_jobs
SELECT job_id FROM jobs
WHERE tenant_id = $1 AND status = $4 AND completed_at < now() - $2::float8 * interval '1 day'
ORDER BY completed_at LIMIT $3;

-- name: count_expired_files
SELECT count(DISTINCT j.job_id) AS jobs, coalesce(sum(f.size_bytes), 0)::bigint AS size_bytes
FROM jobs j LEFT JOIN files f USING (tenant_id, job_id)
WHERE j.tenant_id = $1 AND j.completed_at < now() - $2::float8 * interval '1 day' AND j.original_uri IS NOT NULL;

-- name: count_expired_jobs
SELECT count(DISTINCT j.job_id) AS jobs, coalesce(sum(f.size_bytes), 0)::bigint AS size_bytes
FROM jobs j LEFT JOIN files f USING (tenant_id, job_id)
WHERE j.tenant_id = $1 AND j.status = $3 AND j.completed_at < now() - $2::float8 * interval '1 day';
