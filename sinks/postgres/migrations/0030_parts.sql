-- Recordings that are uploaded straight into S3 in parts: S3's id of the parts, until they are removed. An upload that is completed keeps it
-- until it expires: then there is nothing left to remove.
ALTER TABLE direct_uploads ADD COLUMN parts_id text;
CREATE INDEX direct_uploads_in_parts ON direct_uploads (expires_at) WHERE parts_id IS NOT NULL;
