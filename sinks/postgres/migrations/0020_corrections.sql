-- People correct transcripts. `transcripts` has the newest version of a run's; each that a person has made is a row of its own, with
-- all its words. The run's own has none: its words are in raw_transcript.json.

ALTER TABLE transcripts ADD COLUMN version int NOT NULL DEFAULT 1;
ALTER TABLE jobs ADD COLUMN transcript_version int NOT NULL DEFAULT 1;
ALTER TABLE enrichments ADD COLUMN transcript_version int NOT NULL DEFAULT 1;
ALTER TABLE audit_log ADD COLUMN IF NOT EXISTS author text;

CREATE TABLE transcript_versions (
    tenant_id text NOT NULL,
    job_id text NOT NULL,
    run int NOT NULL,
    version int NOT NULL,
    author text NOT NULL,
    reason text,
    edited_at timestamptz NOT NULL,
    changed_words int NOT NULL,
    word_count int NOT NULL,
    agent_optimized_uri text NOT NULL,
    words jsonb NOT NULL,
    PRIMARY KEY (tenant_id, job_id, run, version)
);

-- The review queue: the disputed spans of each run, and what reviewers decided. Rows stay until their job is deleted: readings and
-- choices are what a tenant's calibration can learn from.
CREATE TABLE review_items (
    tenant_id text NOT NULL,
    id text NOT NULL,
    job_id text NOT NULL,
    run int NOT NULL,
    start_ms bigint,
    end_ms bigint,
    speaker text,
    probability float8 NOT NULL,
    doubt float8 NOT NULL,
    before text NOT NULL,
    after text NOT NULL,
    slots jsonb NOT NULL,
    readings jsonb NOT NULL,
    state text NOT NULL,
    assignee text,
    reviewer text,
    choice int,
    text text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    decided_at timestamptz,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX review_items_queue ON review_items (tenant_id, state, doubt DESC, id);
CREATE INDEX review_items_of_job ON review_items (tenant_id, job_id, run);

CREATE TABLE review_choices (
    tenant_id text NOT NULL,
    item text NOT NULL,
    reviewer text NOT NULL,
    job_id text NOT NULL,
    run int NOT NULL,
    choice int,
    text text,
    chosen_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, item, reviewer)
);
CREATE INDEX review_choices_of_job ON review_choices (tenant_id, job_id, run);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['transcript_versions', 'review_items', 'review_choices'] LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO concord_worker, concord_writer', name);
        EXECUTE format('GRANT SELECT ON %I TO concord_tenant', name);
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY worker ON %I TO concord_worker USING (true) WITH CHECK (true)', name);
        EXECUTE format(
            'CREATE POLICY tenant ON %I FOR SELECT TO concord_tenant
             USING (tenant_id = current_setting(''concord.tenant'', true))', name);
        EXECUTE format(
            'CREATE POLICY writer ON %I TO concord_writer
             USING (tenant_id = current_setting(''concord.tenant'', true))
             WITH CHECK (tenant_id = current_setting(''concord.tenant'', true))', name);
    END LOOP;
END
$$;
