-- What people ask. Each runs as concord_tenant, where row-level security adds the tenant's condition (and with it the index that
-- begins with tenant_id), or as concord_worker, which sees all.

-- name: read_status_version
-- How new the rows of many jobs are. Run as concord_worker, for the service itself: nothing of it is shown.
SELECT tenant_id, job_id, created_at, version
FROM unnest($1::text[], $2::text[]) AS k (tenant_id, job_id) JOIN jobs USING (tenant_id, job_id);

-- name: find_jobs
-- Which jobs are meant by names ($1; $2 is the same in the spelling of ids): for each name and tenant at most one, whose id it is
-- before whose reference. Never `SELECT *`: metadata may be 850 kB a job.
SELECT n.number, j.* FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS n (name, id, number) CROSS JOIN LATERAL (
    SELECT DISTINCT ON (tenant_id)
           {jobs.columns}
    FROM jobs WHERE job_id IN (n.name, n.id) OR reference = n.name
    ORDER BY tenant_id, job_id IN (n.name, n.id) DESC LIMIT $3) AS j
ORDER BY n.number, j.tenant_id;

-- name: jobs_by_reference
-- Ids of the jobs whose reference is from $1 to before $2, in the order of code points, at most $3.
SELECT job_id FROM jobs WHERE reference ~>=~ $1 AND reference ~<~ $2 LIMIT $3;

-- name: jobs_by_end
SELECT job_id FROM jobs WHERE completed_at >= $1 AND completed_at < $2 LIMIT $3;

-- name: jobs_by_metadata
SELECT job_id FROM job_metadata WHERE pair = metadata_pair($1, $2) LIMIT $3;

-- name: read_transcript
-- Of run $3, or of the newest run that has one.
SELECT {transcripts.columns} FROM transcripts WHERE tenant_id = $1 AND job_id = $2 AND run = coalesce($3::int, run) ORDER BY run DESC LIMIT 1;

-- name: read_files
SELECT {files.columns} FROM files WHERE tenant_id = $1 AND job_id = $2 ORDER BY run, kind;

-- name: read_tenants
-- From one tenant to the next by the index: as many steps as there are tenants, however many jobs they have.
WITH RECURSIVE found AS (
    (SELECT tenant_id FROM jobs ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT jobs.tenant_id FROM jobs WHERE jobs.tenant_id > found.tenant_id ORDER BY jobs.tenant_id LIMIT 1)
    FROM found WHERE found.tenant_id IS NOT NULL
)
SELECT tenant_id FROM found WHERE tenant_id IS NOT NULL LIMIT $1;

-- name: count_open_jobs
-- The condition is that of the partial index jobs_open: as many steps as there are jobs that have not ended.
SELECT status, count(*) AS jobs FROM jobs WHERE status NOT IN ('completed', 'failed') GROUP BY status;

-- name: read_usage
-- From $1 to before $2, by tenant, or by job if $3.
SELECT tenant_id, CASE WHEN $3 THEN job_id END AS job_id, provider, unit, sum(quantity) AS quantity
FROM usage WHERE at >= $1 AND at < $2
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4;

-- name: read_changes
-- All of it is in the index jobs_changed. With the time of the question, also in a row without a job where nothing has changed.
SELECT job_id, created_at, version, updated_at, at FROM (SELECT statement_timestamp() AS at) AS asked LEFT JOIN (
    SELECT job_id, created_at, version, updated_at FROM jobs WHERE updated_at >= $1 ORDER BY updated_at LIMIT $2) AS changed ON true
ORDER BY updated_at;

-- name: read_statuses
SELECT {listed_jobs.columns} FROM jobs WHERE job_id = ANY($1::text[]) ORDER BY updated_at, job_id;

-- name: read_summary_items
-- Of kind $1, and of $2 lookup, $3 label, $4 job where they are given; behind ($5, $6, $7), at most $8.
SELECT {summary_items.columns as s},
       coalesce((j.run, j.transcript_version) = (s.run, s.transcript_version), false) AS is_current
FROM summary_items s LEFT JOIN jobs j USING (tenant_id, job_id)
WHERE s.kind = $1 AND ($2::text IS NULL OR s.lookup = $2) AND ($3::text IS NULL OR s.label = $3)
  AND ($4::text IS NULL OR s.job_id = $4)
  AND ($5::timestamptz IS NULL OR s.created_at < $5
       OR (s.created_at = $5 AND (s.job_id > $6 OR (s.job_id = $6 AND s.number > $7))))
ORDER BY s.created_at DESC, s.job_id, s.number LIMIT $8;

-- name: read_call_facts
SELECT j.job_id, j.duration_ms, e.result->>'sentiment' AS sentiment FROM jobs j
LEFT JOIN enrichments e ON (e.tenant_id, e.job_id, e.run, e.kind) = (j.tenant_id, j.job_id, j.run, 'summary')
WHERE j.job_id = ANY($1::text[]);

-- name: read_items_of_calls
SELECT {summary_items.columns} FROM summary_items WHERE kind = $1 AND job_id = ANY($2::text[])
ORDER BY created_at DESC, job_id, number LIMIT $3;
