-- name: lock_retention
-- Held until the transaction ends: one worker deletes old rows at a time.
SELECT pg_try_advisory_xact_lock(hashtext('concord retention'));

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
