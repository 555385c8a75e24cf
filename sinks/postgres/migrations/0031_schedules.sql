-- Work that tenants have done again and again, at times that they choose: an enrichment is made again of those of their jobs that a filter
-- finds. A tick takes the jobs a page at a time; each page is claimed, so that any worker may go on.

CREATE TABLE schedules (
    tenant_id        text NOT NULL,
    schedule_id      uuid PRIMARY KEY,
    name             text NOT NULL,
    cron             text NOT NULL,
    timezone         text NOT NULL,
    enrichment       text NOT NULL,
    jobs             jsonb NOT NULL,
    created_by       text NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The tick that is next, or in progress: behind which job it is, and how many it has asked for.
    due_at           timestamptz NOT NULL,
    after_created_at timestamptz,
    after_job        text,
    asked            integer NOT NULL DEFAULT 0,
    -- When its next page may be claimed, and the newest claim.
    turn_at          timestamptz NOT NULL,
    token            bigint NOT NULL DEFAULT 0,
    -- The last tick that ended.
    last_tick_at     timestamptz,
    last_asked       integer,
    last_error       text
);
CREATE INDEX schedules_by_turn ON schedules (turn_at);
CREATE INDEX schedules_of_tenant ON schedules (tenant_id, created_at, schedule_id);

GRANT SELECT, INSERT, UPDATE, DELETE ON schedules TO concord_worker;
GRANT SELECT ON schedules TO concord_tenant;
GRANT SELECT, INSERT, DELETE ON schedules TO concord_writer;
ALTER TABLE schedules ENABLE ROW LEVEL SECURITY;
CREATE POLICY worker ON schedules TO concord_worker USING (true) WITH CHECK (true);
CREATE POLICY tenant ON schedules FOR SELECT TO concord_tenant USING (tenant_id = current_setting('concord.tenant', true));
CREATE POLICY writer ON schedules TO concord_writer
    USING (tenant_id = current_setting('concord.tenant', true)) WITH CHECK (tenant_id = current_setting('concord.tenant', true));

-- How often an enrichment was begun of the same version of the transcript.
ALTER TABLE enrichments ADD COLUMN generation integer NOT NULL DEFAULT 1;
