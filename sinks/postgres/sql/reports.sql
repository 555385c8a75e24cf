-- Reports of one job, or of a bounded time. Each runs as concord_tenant, where row-level security adds the tenant's condition.

-- name: report_audit
SELECT id, at, run, step, what, duration_ms, attempt, error FROM audit_log
WHERE job_id = $1 AND id > $2 ORDER BY id LIMIT $3;

-- name: report_work
SELECT step, count(*) AS events, count(*) FILTER (WHERE attempt > 0) AS retries, coalesce(sum(duration_ms), 0) AS working_ms
FROM audit_log WHERE job_id = $1 AND run = $2 GROUP BY step ORDER BY step;

-- name: report_requests
SELECT {provider_requests.columns} FROM provider_requests WHERE job_id = $1 AND run = $2 ORDER BY provider;

-- name: report_quality
SELECT quality FROM transcripts WHERE job_id = $1 AND run = $2;

-- name: report_job_usage
SELECT job_id AS of, provider, unit, sum(quantity) AS quantity FROM usage WHERE job_id = $1 AND run = $2
GROUP BY job_id, provider, unit ORDER BY provider, unit;

-- name: report_days
-- All of it is in the index jobs_of_tenant.
SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day, status, count(*) AS jobs,
       coalesce(sum(duration_ms), 0)::bigint AS audio_ms
FROM jobs WHERE created_at >= $1 AND created_at < $2 GROUP BY 1, 2 ORDER BY 1, 2;

-- name: report_completions
-- All of it is in the index jobs_ended. Later runs are left out: their job was created long before.
SELECT count(*) AS completed,
       percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY extract(epoch FROM completed_at - created_at)::float8) AS seconds
FROM jobs WHERE completed_at >= $1 AND completed_at < $2 AND status = 'completed' AND run = 1;

-- name: report_disputed
SELECT sum(words * (1 - agreement)) / nullif(sum(words), 0) AS share
FROM transcripts WHERE created_at >= $1 AND created_at < $2 AND agreement IS NOT NULL;

-- name: report_failures
SELECT code, jobs, job_id, filename, reason, completed_at AS failed_at
FROM (SELECT code, job_id, filename, reason, completed_at, count(*) OVER (PARTITION BY code) AS jobs,
             row_number() OVER (PARTITION BY code ORDER BY completed_at DESC, job_id) AS n
      FROM jobs WHERE completed_at >= $1 AND status = 'failed') AS failed
WHERE n <= $2 ORDER BY jobs DESC, code, n;

-- name: report_usage
SELECT of, provider, unit, sum(quantity) AS quantity
FROM (SELECT CASE $3 WHEN 'day' THEN to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD') WHEN 'job' THEN job_id ELSE '' END AS of,
             provider, unit, quantity
      FROM usage WHERE at >= $1 AND at < $2) AS used
WHERE (of COLLATE "C", provider COLLATE "C", unit COLLATE "C") > ($4, $5, $6)
GROUP BY of, provider, unit ORDER BY of COLLATE "C", provider COLLATE "C", unit COLLATE "C" LIMIT $7;
