-- name: lock_missing_metadata
SELECT after_job, after_tenant FROM job_metadata_missing FOR UPDATE;

-- name: index_metadata
-- The next $3 jobs behind ($1, $2), which stay while this is written; returns the last of them.
WITH next AS (
    SELECT job_id, tenant_id, created_at, metadata FROM jobs WHERE (job_id, tenant_id) > ($1, $2)
    ORDER BY job_id, tenant_id LIMIT $3 FOR KEY SHARE
), indexed AS (
    INSERT INTO job_metadata SELECT tenant_id, pair, created_at, job_id FROM next, metadata_pairs(metadata) AS p (pair)
    ON CONFLICT DO NOTHING)
SELECT job_id, tenant_id FROM next ORDER BY job_id DESC, tenant_id DESC LIMIT 1;

-- name: advance_missing_metadata
UPDATE job_metadata_missing SET after_job = $1, after_tenant = $2;

-- name: end_missing_metadata
DELETE FROM job_metadata_missing;
