-- Recordings that come over HTTP, and requests that are repeated with an Idempotency-Key.

-- Who did it, where a person did.
ALTER TABLE audit_log ADD COLUMN IF NOT EXISTS author text;

-- A blob is held while its writer renews the note; when that lapses, the writer is dead and the blob an orphan. 'infinity': an event
-- that was committed needs the blob. Without a time, the rules of 0010 hold.
ALTER TABLE blob_intents ADD COLUMN lapses_at timestamptz;
CREATE INDEX blob_intents_lapsing ON blob_intents (lapses_at) WHERE lapses_at < 'infinity';

-- Recordings that are uploaded straight into the store, and completed by a request of their own. `upload` is what the request said.
CREATE TABLE direct_uploads (
    tenant_id   text NOT NULL,
    upload_id   uuid NOT NULL,
    job_id      text NOT NULL,
    uri         text NOT NULL,
    size_bytes  bigint NOT NULL,
    upload      jsonb NOT NULL,
    -- Of the token in the URL, where this installation takes the recording itself.
    token_hash  bytea,
    expires_at  timestamptz NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (upload_id)
);
CREATE INDEX direct_uploads_by_age ON direct_uploads (created_at);

-- The tenant, or * for operators. A key is claimed while its request is executed, by a process that renews the claim.
CREATE TABLE idempotency_keys (
    tenant_id     text NOT NULL,
    key           text NOT NULL,
    fingerprint   text NOT NULL,
    claim         uuid NOT NULL,
    claimed_until timestamptz,
    status        integer,
    headers       jsonb,
    body          bytea,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['direct_uploads', 'idempotency_keys'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO concord_worker, concord_writer', name);
        EXECUTE format('CREATE POLICY worker ON %I TO concord_worker USING (true) WITH CHECK (true)', name);
        EXECUTE format(
            'CREATE POLICY writer ON %I TO concord_writer
             USING (tenant_id = current_setting(''concord.tenant'', true))
             WITH CHECK (tenant_id = current_setting(''concord.tenant'', true))', name);
    END LOOP;
END
$$;
