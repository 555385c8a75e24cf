-- Lists of jobs by what people look for, and what a tenant did in a time.
--
-- Indexes of a million jobs take some seconds each, in which nothing is written to `jobs`.

-- With the filename, so that a part of one is looked for without reading rows. (pg_trgm is not everywhere; and under row-level
-- security no index finds a part of a text, because the operators are not leakproof. Trigrams of our own, in a table with a GIN
-- index, made a new job's row ten times as expensive.) With what the counts of some days add up, too.
CREATE INDEX jobs_of_tenant_named ON jobs (tenant_id, created_at DESC, job_id) INCLUDE (filename, status, duration_ms);
DROP INDEX jobs_of_tenant;
ALTER INDEX jobs_of_tenant_named RENAME TO jobs_of_tenant;

-- By the beginning of a reference, whatever the database's collation is.
CREATE INDEX jobs_by_reference_prefix ON jobs (tenant_id, reference text_pattern_ops) WHERE reference IS NOT NULL;

-- By a job's end: a range of `completed_at`, and the numbers of some days. One entry a run; a job under way has none.
CREATE INDEX jobs_ended ON jobs (tenant_id, completed_at DESC, job_id) INCLUDE (created_at, status, run)
    WHERE completed_at IS NOT NULL;

-- By the last change: what is new of a tenant's jobs, for those who follow all of them. Its entries tell what is new without the
-- rows. (Another index that every step writes: without it, a stream would need a connection and a query for each open job.)
CREATE INDEX jobs_changed ON jobs (tenant_id, updated_at) INCLUDE (job_id, created_at, version);

-- The metadata by which a job is found: the first 64 pairs whose value is a text, a number or a truth value. A table of its own:
-- a job's row is written anew by every step, and each of its indexes with it, and a GIN index would read all the metadata again,
-- which may be 850 kB. This is written once, in the order in which it is listed.
CREATE TABLE job_metadata (
    tenant_id   text NOT NULL,
    pair        bigint NOT NULL,
    created_at  timestamptz NOT NULL,
    job_id      text NOT NULL,
    PRIMARY KEY (tenant_id, pair, created_at, job_id)
);

-- A pair as a number of 64 bits: of an index's entries, texts would take most.
CREATE FUNCTION metadata_pair(key text, value text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT hashtextextended(length(key) || ':' || key || value, 0)
$$;

CREATE FUNCTION metadata_pairs(metadata jsonb) RETURNS SETOF bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT DISTINCT metadata_pair(key, value #>> '{}')
    FROM (SELECT key, value FROM jsonb_each(metadata) WHERE jsonb_typeof(value) IN ('string', 'number', 'boolean') LIMIT 64) AS pairs
$$;

-- Its rows are found by what they were made of, and so need neither a foreign key nor an index for one.
CREATE FUNCTION write_job_metadata() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM job_metadata m USING metadata_pairs(OLD.metadata) AS p (pair)
        WHERE (m.tenant_id, m.pair, m.created_at, m.job_id) = (OLD.tenant_id, p.pair, OLD.created_at, OLD.job_id);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO job_metadata
        SELECT NEW.tenant_id, pair, NEW.created_at, NEW.job_id FROM metadata_pairs(NEW.metadata) AS p (pair)
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
-- No step sets the metadata of a job that exists; only a new upload of the same job does.
CREATE TRIGGER job_metadata AFTER INSERT OR DELETE OR UPDATE OF metadata ON jobs FOR EACH ROW EXECUTE FUNCTION write_job_metadata();

-- How far the pairs of jobs of earlier versions are written; no row once they all are. Not here: a million jobs take a minute.
CREATE TABLE job_metadata_missing (after_job text NOT NULL, after_tenant text NOT NULL);
INSERT INTO job_metadata_missing SELECT '', '' WHERE EXISTS (SELECT FROM jobs);

GRANT SELECT, INSERT, UPDATE, DELETE ON job_metadata, job_metadata_missing TO concord_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON job_metadata TO concord_writer;
GRANT SELECT ON job_metadata TO concord_tenant;
ALTER TABLE job_metadata ENABLE ROW LEVEL SECURITY;
CREATE POLICY worker ON job_metadata TO concord_worker USING (true) WITH CHECK (true);
CREATE POLICY tenant ON job_metadata FOR SELECT TO concord_tenant USING (tenant_id = current_setting('concord.tenant', true));
CREATE POLICY writer ON job_metadata TO concord_writer
    USING (tenant_id = current_setting('concord.tenant', true)) WITH CHECK (tenant_id = current_setting('concord.tenant', true));
