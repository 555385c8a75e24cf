-- Reports of one job, or of a bounded time. Each runs as concord_tenant, where row-level security adds the tenant's condition.

-- name: report_audit
SELECT id, at, run, step, what, duration_ms, attempt, error, author FROM audit_log
WHERE job_id = $1 AND id > $2 ORDER BY id LIMIT $3;

-- name: report_account_changes
-- Of no job. The tenant is named, because operators' entries are read as of all tenants.
SELECT id, at, step AS about, what, subject, details, author FROM audit_log
WHERE tenant_id = $1 AND job_id = '' AND ($2::bigint IS NULL OR id < $2) AND step = ANY ($3::text[])
ORDER BY id DESC LIMIT $4;

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
SELECT to_char(begins AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day, status, jobs, audio_ms
FROM generate_series(date_trunc('day', $1::timestamptz, 'UTC'), $2, interval '24 hours') AS begins
CROSS JOIN LATERAL (
    SELECT status, count(*) AS jobs, coalesce(sum(duration_ms), 0)::bigint AS audio_ms FROM jobs
    WHERE created_at >= greatest(begins, $1) AND created_at < least(begins + interval '24 hours', $2) GROUP BY status) AS counted
ORDER BY 1, 2;

-- name: report_completions
-- All of it is in the index jobs_ended. Later runs are left out: their job was created long before.
SELECT count(*) AS completed,
       percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY completed_at - created_at) AS seconds
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
-- By day or provider, day by day: a day's providers are few, and adding them up takes neither a sort nor a date for each row. In
-- hours, because a day of the session's time zone may have 23.
SELECT day AS of, provider, unit, quantity
FROM (SELECT to_char(begins AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day, begins, begins + interval '24 hours' AS ends
      FROM generate_series(date_trunc('day', $1::timestamptz, 'UTC'), $2, interval '24 hours') AS begins WHERE $3 = 'day'
      UNION ALL SELECT '', $1, $2 WHERE $3 = 'provider') AS days
CROSS JOIN LATERAL (
    SELECT provider, unit, sum(quantity) AS quantity FROM usage
    WHERE at >= greatest(begins, $1) AND at < least(ends, $2) GROUP BY provider, unit) AS added
WHERE day >= $4 AND (day COLLATE "C", provider COLLATE "C", unit COLLATE "C") > ($4, $5, $6)
ORDER BY day COLLATE "C", provider COLLATE "C", unit COLLATE "C" LIMIT $7;

-- name: report_usage_by_job
-- In the order of the primary key, so that a page reads the rows of its own jobs.
SELECT job_id AS of, provider, unit, sum(quantity) AS quantity
FROM usage WHERE at >= $1 AND at < $2 AND job_id >= $3
GROUP BY job_id, provider, unit HAVING (job_id, provider, unit) > ($3, $4, $5)
ORDER BY job_id, provider, unit LIMIT $6;
