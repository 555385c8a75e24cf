-- name: begin_upload
{direct_uploads.insert_one}
{direct_uploads.update};

-- name: direct_upload
SELECT {direct_uploads.columns} FROM direct_uploads WHERE upload_id = $1;

-- name: expired_parts
SELECT {direct_uploads.columns} FROM direct_uploads
WHERE parts_id IS NOT NULL AND expires_at < now() - $1::float8 * interval '1 second' ORDER BY expires_at LIMIT $2;

-- name: forget_parts
UPDATE direct_uploads SET parts_id = NULL WHERE upload_id = ANY($1::uuid[]);
