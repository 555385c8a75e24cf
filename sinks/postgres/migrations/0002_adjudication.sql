-- What providers' requests used up, and what judges answered about disputed words.

-- One row for each thing counted in each request. No foreign key: what was spent stays known when a job is deleted.
CREATE TABLE usage (
    tenant_id  text NOT NULL,
    job_id     text NOT NULL,
    run        integer NOT NULL,
    provider   text NOT NULL,
    unit       text NOT NULL,
    ref        text NOT NULL,
    quantity   double precision NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, run, provider, unit, ref)
);
CREATE INDEX usage_of_tenant ON usage (tenant_id, at);

-- By the question's hash, which covers all that the answer depends on; no words are kept here. A row with a fault says that this
-- run has asked and got no usable answer; it holds for that run only.
CREATE TABLE adjudications (
    tenant_id  text NOT NULL,
    question   text NOT NULL,
    job_id     text NOT NULL,
    run        integer NOT NULL,
    judge      text NOT NULL,
    choice     integer CHECK (choice >= 0),
    fault      text CHECK (fault IS NULL OR choice IS NULL),
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, question)
);
CREATE INDEX adjudications_by_age ON adjudications USING brin (at);

GRANT SELECT, INSERT, UPDATE, DELETE ON usage, adjudications TO concord_worker;
GRANT SELECT ON usage, adjudications TO concord_tenant;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['usage', 'adjudications'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY worker ON %I TO concord_worker USING (true) WITH CHECK (true)', name);
        EXECUTE format(
            'CREATE POLICY tenant ON %I FOR SELECT TO concord_tenant
             USING (tenant_id = current_setting(''concord.tenant'', true))', name);
    END LOOP;
END
$$;
