-- Names of a deleted job's blobs that are not in its folder: those of a conversation are named after the conversation.
ALTER TABLE deletions ADD COLUMN blobs jsonb NOT NULL DEFAULT '[]';
