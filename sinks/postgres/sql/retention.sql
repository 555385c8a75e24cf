-- name: lock_retention
-- Held until the transaction ends: one worker deletes old rows at a time.
SELECT pg_try_advisory_xact_lock(hashtext('concord retention'));

-- name: count_expired_entries
-- How many entries of the audit log are older than their tenant wants, or than $1 days where it has set nothing, by tenant.
SELECT e.tenant_id, count(*) AS entries FROM expiring_entries($1::float8) e
JOIN audit_log a ON a.tenant_id = e.tenant_id AND a.at < e.before
GROUP BY e.tenant_id ORDER BY e.tenant_id;

-- name: forget_entries
-- Delete at most $2 of them.
WITH gone AS (
    DELETE FROM audit_log WHERE id = ANY(ARRAY(
        SELECT a.id FROM expiring_entries($1::float8) e CROSS JOIN LATERAL (
            SELECT id FROM audit_log WHERE tenant_id = e.tenant_id AND at < e.before ORDER BY at LIMIT $2::bigint) a
        LIMIT $2::bigint)) RETURNING 1
)
SELECT count(*) FROM gone;

-- name: expired_files
SELECT job_id FROM jobs
WHERE tenant_id = $1 AND completed_at < now() - $2::float8 * interval '1 day' AND original_uri IS NOT NULL
ORDER BY completed_at LIMIT $3;

-- name: expired_conversation_files
-- By the index of conversations that have files: what was stored, was so before the run ended.
SELECT job_id FROM files f JOIN jobs j USING (tenant_id, job_id)
WHERE f.tenant_id = $1 AND f.kind = 'conversation' AND f.created_at < now() - $2::float8 * interval '1 day'
  AND j.completed_at < now() - $2::float8 * interval '1 day'
GROUP BY job_id ORDER BY min(f.created_at) LIMIT $3;

-- name: expired_failed_conversations
SELECT job_id FROM jobs
WHERE tenant_id = $1 AND status = 'failed' AND completed_at < now() - $2::float8 * interval '1 day'
  AND starts_with(audio_uri, 'elevenlabs:')
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

-- name: count_expired_conversation_files
SELECT count(DISTINCT j.job_id) AS jobs, coalesce(sum(f.size_bytes), 0)::bigint AS size_bytes
FROM jobs j JOIN files f USING (tenant_id, job_id)
WHERE j.tenant_id = $1 AND j.completed_at < now() - $2::float8 * interval '1 day' AND starts_with(j.audio_uri, 'elevenlabs:');

-- name: count_expired_failed_conversations
SELECT count(DISTINCT j.job_id) AS jobs, coalesce(sum(f.size_bytes), 0)::bigint AS size_bytes
FROM jobs j LEFT JOIN files f USING (tenant_id, job_id)
WHERE j.tenant_id = $1 AND j.status = 'failed' AND j.completed_at < now() - $2::float8 * interval '1 day'
  AND starts_with(j.audio_uri, 'elevenlabs:');
