-- name: never_indexed
-- From tenant to tenant by the index, and of each the newest; then the first of each, the second, and so on.
WITH RECURSIVE waiting AS (
    (SELECT tenant_id FROM jobs
     WHERE status = 'completed' AND NOT enrichment ? 'index' AND options->>'enrich' IS DISTINCT FROM 'false'
     ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT n.tenant_id FROM waiting w CROSS JOIN LATERAL (
        SELECT tenant_id FROM jobs
        WHERE status = 'completed' AND NOT enrichment ? 'index' AND options->>'enrich' IS DISTINCT FROM 'false'
          AND tenant_id > w.tenant_id
        ORDER BY tenant_id LIMIT 1) n
), open AS (
    SELECT count(*) AS many FROM (
        SELECT FROM enrichments WHERE state NOT IN ('done', 'failed') AND kind = 'index' LIMIT $2) AS counted
), next AS (
    SELECT n.job_id, w.tenant_id, n.place FROM waiting w CROSS JOIN LATERAL (
        SELECT job_id, row_number() OVER (ORDER BY created_at DESC, job_id) AS place FROM jobs j
        WHERE status = 'completed' AND NOT enrichment ? 'index' AND options->>'enrich' IS DISTINCT FROM 'false'
          AND j.tenant_id = w.tenant_id
        ORDER BY created_at DESC, job_id LIMIT $1) n
    ORDER BY n.place, w.tenant_id LIMIT least($1, (SELECT $2 - many FROM open))
)
SELECT {jobs.columns as j} FROM next JOIN jobs j USING (tenant_id, job_id) ORDER BY next.place, tenant_id;
