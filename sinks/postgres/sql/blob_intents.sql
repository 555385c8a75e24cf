-- name: intend_blobs
INSERT INTO blob_intents (tenant_id, job_id, uri)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS w (tenant_id, job_id, uri) ORDER BY uri
ON CONFLICT (uri) DO UPDATE SET at = excluded.at, lapses_at = NULL;

-- name: hold_blob
-- What is intended without a time stays so; nothing is returned for a blob that is being deleted.
INSERT INTO blob_intents (tenant_id, job_id, uri, lapses_at)
VALUES ($1, $2, $3, clock_timestamp() + interval '1 second' * $4::float8)
ON CONFLICT (uri) DO UPDATE SET at = excluded.at,
    lapses_at = CASE WHEN blob_intents.lapses_at IS NOT NULL THEN greatest(blob_intents.lapses_at, excluded.lapses_at) END
WHERE blob_intents.at <> '-infinity'
RETURNING uri;

-- name: keep_held_blob
-- Its job is about to be committed: it stays as long as that job is `uploaded`. Nothing is returned if it is held no more.
UPDATE blob_intents SET at = clock_timestamp(), lapses_at = 'infinity'
WHERE uri = $1 AND at <> '-infinity' AND (lapses_at IS NULL OR lapses_at > clock_timestamp())
RETURNING uri;

-- name: claim_lapsed_blobs
-- Their writers are dead. From here on nobody can hold them until they are deleted.
UPDATE blob_intents SET at = '-infinity' WHERE lapses_at < now() AND lapses_at < 'infinity' AND at <> '-infinity';

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
  AND (i.at = '-infinity' OR j.status <> 'uploaded'
       OR i.at < clock_timestamp() - interval '1 second' * $2::float8 AND (i.lapses_at IS DISTINCT FROM 'infinity' OR j.job_id IS NULL))
ORDER BY i.at LIMIT $3;

-- name: forget_blobs
DELETE FROM blob_intents WHERE uri = ANY($1::text[]);
