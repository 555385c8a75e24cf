-- What summaries say of many calls: who is to do what, who took part, and what was named. A row an item, of the newest summary of a
-- job; the whole summary is summary.json.

CREATE TABLE summary_items (
    tenant_id          text NOT NULL,
    job_id             text NOT NULL,
    run                int NOT NULL,
    kind               text NOT NULL,
    number             int NOT NULL,
    transcript_version int NOT NULL,
    text               text NOT NULL,
    -- The text, or who is to do something, by which items are found: folded, because under row-level security no index finds lower().
    lookup             text NOT NULL,
    label              text,
    who                text,
    due                text,
    quote              text NOT NULL,
    words              jsonb NOT NULL,
    speaker            text,
    start_ms           bigint,
    end_ms             bigint,
    disputed           boolean NOT NULL,
    created_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, job_id, run, kind, number)
);
-- In the order of lists, newest first; and the same of one text.
CREATE INDEX summary_items_listed ON summary_items (tenant_id, kind, created_at DESC, job_id, number);
CREATE INDEX summary_items_found ON summary_items (tenant_id, kind, lookup, created_at DESC, job_id, number);

GRANT SELECT, INSERT, UPDATE, DELETE ON summary_items TO concord_worker, concord_writer;
GRANT SELECT ON summary_items TO concord_tenant;
ALTER TABLE summary_items ENABLE ROW LEVEL SECURITY;
CREATE POLICY worker ON summary_items TO concord_worker USING (true) WITH CHECK (true);
CREATE POLICY tenant ON summary_items FOR SELECT TO concord_tenant
    USING (tenant_id = current_setting('concord.tenant', true));
CREATE POLICY writer ON summary_items TO concord_writer
    USING (tenant_id = current_setting('concord.tenant', true))
    WITH CHECK (tenant_id = current_setting('concord.tenant', true));

-- How many tokens a tenant has used in a month is asked before each call of a language model.
CREATE INDEX usage_of_tokens ON usage (tenant_id, at) INCLUDE (quantity) WHERE unit = 'total_tokens';
