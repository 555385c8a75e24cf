-- The ledger of reports that are mailed: one row for each run of a job, written before the mail server gets the content and behind
-- its answer. What a killed worker leaves in `sending` may have been taken.

CREATE TABLE mails (
    tenant_id           text NOT NULL,
    job_id              text NOT NULL,
    run                 integer NOT NULL,
    transcript_version  integer NOT NULL,
    generation          integer NOT NULL,
    message_id          text NOT NULL,
    state               text NOT NULL CHECK (state IN ('waiting', 'sending', 'sent', 'refused', 'in_doubt')),
    waiting             jsonb NOT NULL,
    accepted            jsonb NOT NULL,
    refused             jsonb NOT NULL,
    -- How often the server was called: the fencing token of the newest attempt.
    attempts            integer NOT NULL,
    answer              text,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, job_id, run)
);
CREATE INDEX mails_by_state ON mails (state, updated_at DESC);

GRANT SELECT, INSERT, UPDATE, DELETE ON mails TO concord_worker, concord_writer;
GRANT SELECT ON mails TO concord_tenant;
ALTER TABLE mails ENABLE ROW LEVEL SECURITY;
CREATE POLICY worker ON mails TO concord_worker USING (true) WITH CHECK (true);
CREATE POLICY tenant ON mails FOR SELECT TO concord_tenant USING (tenant_id = current_setting('concord.tenant', true));
CREATE POLICY writer ON mails TO concord_writer
    USING (tenant_id = current_setting('concord.tenant', true))
    WITH CHECK (tenant_id = current_setting('concord.tenant', true));
