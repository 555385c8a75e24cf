-- Jobs that were put on their way again because nothing was on its way for them, and blobs that are about to be written.

CREATE TABLE revivals (
    tenant_id  text NOT NULL,
    job_id     text NOT NULL,
    -- The job's version at that time: once it has changed, counting begins anew.
    version    bigint NOT NULL,
    times      integer NOT NULL,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, job_id),
    FOREIGN KEY (tenant_id, job_id) REFERENCES jobs (tenant_id, job_id) ON DELETE CASCADE
);

-- A row is written before the blob and deleted by the transaction that refers to it. What stays is an orphan. No foreign key: the
-- job may never come to be.
CREATE TABLE blob_intents (
    uri        text PRIMARY KEY,
    tenant_id  text NOT NULL,
    job_id     text NOT NULL,
    at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX blob_intents_by_age ON blob_intents (at);

GRANT SELECT, INSERT, UPDATE, DELETE ON revivals, blob_intents TO concord_worker;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['revivals', 'blob_intents'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY worker ON %I TO concord_worker USING (true) WITH CHECK (true)', name);
    END LOOP;
END
$$;
