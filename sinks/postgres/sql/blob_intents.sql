-- name: intend_blobs
INSERT INTO blob_intents (tenant_id, job_id, uri)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS w (tenant_id, job_id, uri) ORDER BY uri
ON CONFLICT (uri) DO UPDATE SET at = excluded.at;

-- name: settle_blobs
-- The blobs $1 are referred to now; those of refused steps ($2) are orphans unless another step refers to them.
WITH refused AS (
    UPDATE blob_intents SET at = '-infinity' WHERE uri = ANY($2::text[]) AND NOT uri = ANY($1::text[])
)
DELETE FROM blob_intents WHERE uri = ANY($1::text[]);

-- name: orphan_blobs
SELECT i.uri, EXISTS (SELECT FROM files f WHERE (f.tenant_id, f.job_id, f.uri) = (i.tenant_id, i.job_id, i.uri)) AS wanted
FROM blob_intents i LEFT JOIN jobs j USING (tenant_id, job_id)
WHERE i.at < clock_timestamp() - interval '1 second' * $1::float8
  AND (i.at = '-infinity' OR i.at < clock_timestamp() - interval '1 second' * $2::float8 OR j.status <> 'uploaded')
ORDER BY i.at LIMIT $3;

-- name: forget_blobs
DELETE FROM blob_intents WHERE uri = ANY($1::text[]);
