-- What is made of a transcript after its run has completed: a row per run and kind. `jobs.enrichment` is the published view of the
-- current run's rows, so that a status is read from one table.

CREATE TABLE enrichments (
    tenant_id text NOT NULL,
    job_id text NOT NULL,
    run int NOT NULL,
    kind text NOT NULL,
    state text NOT NULL,
    attempts int NOT NULL,
    error text,
    code text,
    version text,
    result jsonb,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    finished_at timestamptz,
    -- How often its event was made again since the row last changed, and when last.
    revivals int NOT NULL DEFAULT 0,
    revived_at timestamptz,
    PRIMARY KEY (tenant_id, job_id, run, kind)
);
-- The sweeper looks for those that stand still.
CREATE INDEX enrichments_open ON enrichments (updated_at) WHERE state NOT IN ('done', 'failed');

ALTER TABLE jobs ADD COLUMN enrichment jsonb NOT NULL DEFAULT '{}';

GRANT SELECT, INSERT, UPDATE, DELETE ON enrichments TO concord_worker;
GRANT SELECT ON enrichments TO concord_tenant;
ALTER TABLE enrichments ENABLE ROW LEVEL SECURITY;
CREATE POLICY worker ON enrichments TO concord_worker USING (true) WITH CHECK (true);
CREATE POLICY tenant ON enrichments FOR SELECT TO concord_tenant
    USING (tenant_id = current_setting('concord.tenant', true));
