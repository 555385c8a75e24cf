-- name: jobs
-- Without their metadata, which may be large.
SELECT {jobs.columns}
FROM jobs JOIN unnest($1::text[], $2::text[]) AS w (tenant_id, job_id) USING (tenant_id, job_id);

-- name: metadata
SELECT metadata FROM jobs WHERE tenant_id = $1 AND job_id = $2;

-- name: transcript_uri
SELECT agent_optimized_uri FROM transcripts WHERE tenant_id = $1 AND job_id = $2 AND run = $3;

-- name: words_of_version
SELECT t.raw_transcript_uri, t.language, v.words
FROM transcripts t LEFT JOIN transcript_versions v ON (v.tenant_id, v.job_id, v.run) = (t.tenant_id, t.job_id, t.run) AND v.version = $4
WHERE (t.tenant_id, t.job_id, t.run) = ($1, $2, $3);

-- name: named
-- The jobs that have this id, and those that have this reference, with the number of the question.
WITH w AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS w (tenant_id, job_id, reference, number)
)
SELECT w.number, {jobs.columns as j}
FROM w JOIN jobs j ON (j.tenant_id, j.job_id) = (w.tenant_id, w.job_id)
UNION ALL
SELECT w.number, {jobs.columns as j}
FROM w JOIN jobs j ON (j.tenant_id, j.reference) = (w.tenant_id, w.reference) AND j.job_id <> w.job_id;

-- name: open_jobs
-- A tenant's jobs that have not ended, by id.
SELECT tenant_id, job_id FROM jobs
WHERE tenant_id = $1 AND status = ANY($2::text[]) AND status NOT IN ('completed', 'failed') AND job_id > $3
ORDER BY job_id LIMIT $4;
