-- name: deletions_of_jobs
-- The newest deletion of each of these jobs.
SELECT DISTINCT ON (d.tenant_id, d.job_id) {deletions.columns as d} FROM deletions d
JOIN unnest($1::text[], $2::text[]) AS w (tenant_id, job_id) USING (tenant_id, job_id)
WHERE d.scope = 'job' ORDER BY d.tenant_id, d.job_id, d.run DESC;

-- name: requests_of_job
SELECT {provider_requests.columns} FROM provider_requests WHERE tenant_id = $1 AND job_id = $2 ORDER BY run, provider;

-- name: bytes_of_job
SELECT coalesce(sum(size_bytes), 0)::bigint FROM files WHERE tenant_id = $1 AND job_id = $2;

-- name: insert_deletion
{deletions.insert};

-- name: forget_files
-- The recording is gone: a new run has to fetch it again.
UPDATE jobs SET original_uri = NULL WHERE tenant_id = $1 AND job_id = $2;

-- name: due_deletions
-- Claimed by putting them off: a worker that dies leaves them to the next. The number of attempts is the claim's token.
UPDATE deletions SET due_at = clock_timestamp() + $2::float8 * interval '1 second', attempts = attempts + 1
WHERE id = ANY(ARRAY(
    SELECT id FROM deletions WHERE due_at <= now() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED))
RETURNING {deletions.columns};

-- name: keep_deletion
-- Refused if the deletion was claimed or resumed since: another pass is due then.
UPDATE deletions SET due_at = $3, done_at = $4, error = $5, copies = $6, receipt = $7 WHERE id = $1 AND attempts = $2
RETURNING id;

-- name: put_off_deletion
UPDATE deletions SET due_at = $3, error = $4 WHERE id = $1 AND attempts = $2;

-- name: resume_deletion
UPDATE deletions SET due_at = clock_timestamp(), attempts = attempts + 1, copies = copies || $3::jsonb
WHERE id = (SELECT id FROM deletions WHERE tenant_id = $1 AND job_id = $2 AND scope = 'job' ORDER BY run DESC LIMIT 1);

-- name: stop_tasks
-- Leases of tasks for these runs get another holder: their workers cancel them at the next renewal.
UPDATE leases SET holder = 'deletion', until = clock_timestamp() + $4::float8 * interval '1 second'
WHERE key ~ '^[^/]+/[^/]+/[^/]+/\d+(/|$)'
  AND (split_part(key, '/', 2), split_part(key, '/', 3)) = ($1, $2) AND split_part(key, '/', 4)::int <= $3;

-- name: forget_tasks
DELETE FROM leases
WHERE holder = 'deletion' AND (split_part(key, '/', 2), split_part(key, '/', 3)) = ($1, $2);

-- name: detach_usage
-- What was billed stays known, and names the deletion in place of the job.
UPDATE usage SET job_id = $4, ref = md5(ref) WHERE tenant_id = $1 AND job_id = $2 AND run <= $3;

-- name: erase_strays
DELETE FROM strays WHERE starts_with(marker, 'concord-' || $1 || '~' || $2 || '~');

-- name: erase_answers
-- What requests with an Idempotency-Key were answered about the job, whose id is a string or a part of a path in them; of a day's
-- answers to the tenant, and to operators.
DELETE FROM idempotency_keys WHERE tenant_id IN ($1, '*')
  AND EXISTS (SELECT FROM unnest(ARRAY['"%s"', '/%s"', '/%s/', '/%s?']) AS place
              WHERE position(convert_to(replace(place, '%s', $2), 'UTF8') IN body) > 0);

-- name: read_deletion
SELECT {deletions.columns} FROM deletions WHERE id = $1;

-- name: read_deletion_of_job
-- The newest deletion of a job with one of these ids.
SELECT {deletions.columns} FROM deletions WHERE job_id = ANY($1::text[]) AND scope = 'job'
ORDER BY requested_at DESC LIMIT 1;

-- name: lock_receipt
SELECT receipt FROM deletions WHERE id = $1 FOR UPDATE;

-- name: count_erased
UPDATE deletions SET receipt = $2 WHERE id = $1;
