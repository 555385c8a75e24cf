-- Jobs, and recordings of jobs, that are deleted for good. A row is written in the transaction that deletes the job's own row, is
-- worked on until nothing is left, and stays: it is the receipt, and keeps a deleted run from beginning again.

CREATE TABLE deletions (
    id            text PRIMARY KEY,
    tenant_id     text NOT NULL,
    job_id        text NOT NULL,
    -- The last run that is deleted, and the job's version. A new job of the same id goes on behind them.
    run           integer NOT NULL,
    version       bigint NOT NULL,
    scope         text NOT NULL CHECK (scope IN ('job', 'files')),
    requested_by  text NOT NULL,
    requested_at  timestamptz NOT NULL,
    -- From when on nothing can write of the job any more.
    settled_at    timestamptz NOT NULL,
    -- When the next pass is due; NULL after the last one.
    due_at        timestamptz,
    attempts      integer NOT NULL,
    done_at       timestamptz,
    error         text,
    -- What recognizers may still have: emptied when it is gone.
    copies        jsonb NOT NULL,
    receipt       jsonb NOT NULL
);
CREATE INDEX deletions_of_job ON deletions (tenant_id, job_id, run);
CREATE INDEX deletions_due ON deletions (due_at) WHERE due_at IS NOT NULL;

GRANT SELECT, INSERT, UPDATE, DELETE ON deletions TO concord_worker, concord_writer;
GRANT SELECT ON deletions TO concord_tenant;
ALTER TABLE deletions ENABLE ROW LEVEL SECURITY;
CREATE POLICY worker ON deletions TO concord_worker USING (true) WITH CHECK (true);
CREATE POLICY tenant ON deletions FOR SELECT TO concord_tenant
    USING (tenant_id = current_setting('concord.tenant', true));
CREATE POLICY writer ON deletions TO concord_writer
    USING (tenant_id = current_setting('concord.tenant', true))
    WITH CHECK (tenant_id = current_setting('concord.tenant', true));

-- Which jobs are too old to be kept, by tenant, without a look at the others.
CREATE INDEX jobs_expiring ON jobs (tenant_id, status, completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX jobs_with_audio ON jobs (tenant_id, completed_at) WHERE completed_at IS NOT NULL AND original_uri IS NOT NULL;

-- What was billed is kept for a time, and the oldest rows are found as those of `inbox` are (0011).
DROP INDEX usage_by_time;
CREATE INDEX usage_by_time ON usage (at);
