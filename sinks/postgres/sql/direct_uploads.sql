-- name: begin_upload
{direct_uploads.insert_one}
{direct_uploads.update};

-- name: direct_upload
SELECT {direct_uploads.columns} FROM direct_uploads WHERE upload_id = $1;
