-- A job is named by its tenant and its id: two tenants may use the same. A producer's own name for a job is its reference.
--
-- Takes exclusive locks, in the order in which workers lock: what they have begun is finished first, and what comes then waits
-- (seconds for a million jobs). Workers of an earlier version that are still there cannot go on, because their statements would
-- mix tenants up. They are told that the server does not take them now, which they wait out until they are replaced: nothing that
-- they have in hand is committed, and so nothing of it is lost.
LOCK TABLE inbox, provider_requests, jobs, transcripts, files, usage, audit_log, outbox, leases IN ACCESS EXCLUSIVE MODE;

ALTER TABLE provider_requests DROP CONSTRAINT provider_requests_job_id_fkey, DROP CONSTRAINT provider_requests_pkey;
ALTER TABLE transcripts DROP CONSTRAINT transcripts_job_id_fkey, DROP CONSTRAINT transcripts_pkey;
ALTER TABLE files DROP CONSTRAINT files_job_id_fkey, DROP CONSTRAINT files_pkey;

-- Ids stay as they are. What is no UUID was the producer's own name, and is found by it as before.
ALTER TABLE jobs DROP CONSTRAINT jobs_pkey, ADD COLUMN reference text;
UPDATE jobs SET reference = job_id WHERE job_id !~ '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$';
-- The id first in both indexes: operators look for a job without naming a tenant.
ALTER TABLE jobs ADD PRIMARY KEY (job_id, tenant_id);
CREATE UNIQUE INDEX jobs_by_reference ON jobs (reference, tenant_id) WHERE reference IS NOT NULL;

ALTER TABLE provider_requests ADD PRIMARY KEY (tenant_id, job_id, run, provider),
    ADD FOREIGN KEY (tenant_id, job_id) REFERENCES jobs (tenant_id, job_id) ON DELETE CASCADE;
ALTER TABLE transcripts ADD PRIMARY KEY (tenant_id, job_id, run),
    ADD FOREIGN KEY (tenant_id, job_id) REFERENCES jobs (tenant_id, job_id) ON DELETE CASCADE;
ALTER TABLE files ADD PRIMARY KEY (tenant_id, job_id, run, kind),
    ADD FOREIGN KEY (tenant_id, job_id) REFERENCES jobs (tenant_id, job_id) ON DELETE CASCADE;
ALTER TABLE usage DROP CONSTRAINT usage_pkey, ADD PRIMARY KEY (tenant_id, job_id, run, provider, unit, ref);
DROP INDEX audit_log_of_job;
CREATE INDEX audit_log_of_job ON audit_log (tenant_id, job_id, id);

-- Whose job a message is about, where that is known.
ALTER TABLE outbox ADD COLUMN tenant_id text, ADD COLUMN job_id text, ADD COLUMN run integer;

CREATE FUNCTION pg_temp.whose(value bytea) RETURNS json LANGUAGE plpgsql AS $$
BEGIN
    RETURN json_build_object('tenant_id', convert_from(value, 'UTF8')::json ->> 'tenant_id',
                             'job_id', convert_from(value, 'UTF8')::json ->> 'job_id',
                             'run', coalesce((convert_from(value, 'UTF8')::json ->> 'run')::integer, 1));
EXCEPTION WHEN others THEN
    RETURN NULL;  -- a stranger's bytes
END
$$;
UPDATE outbox o
SET tenant_id = w.whose ->> 'tenant_id', job_id = w.whose ->> 'job_id', run = (w.whose ->> 'run')::integer,
    -- The topic has another key from now on.
    key = CASE WHEN o.topic = 'job.status' THEN convert_to((w.whose ->> 'tenant_id') || '/' || (w.whose ->> 'job_id'), 'UTF8') ELSE o.key END
FROM (SELECT shard, id, pg_temp.whose(value) AS whose FROM outbox WHERE topic NOT LIKE '%.dlq' OFFSET 0) w
WHERE (o.shard, o.id) = (w.shard, w.id) AND w.whose ->> 'job_id' IS NOT NULL;
DROP FUNCTION pg_temp.whose(bytea);

DROP INDEX outbox_asked;
CREATE INDEX outbox_of_job ON outbox (tenant_id, job_id, topic);

-- Connections of this version say so (sinks.postgres_connect.SCHEMA); tools that are no workers are not stopped.
CREATE FUNCTION refuse_old_worker() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'this worker is of an earlier version than the database: replace it' USING ERRCODE = 'cannot_connect_now';
END
$$;
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['inbox', 'provider_requests', 'leases'] LOOP
        EXECUTE format(
            'CREATE TRIGGER old_worker BEFORE INSERT OR UPDATE ON %I FOR EACH STATEMENT
             WHEN (current_setting(''application_name'') = ''concord''
                   AND coalesce(current_setting(''concord.schema'', true), '''') < ''0006'')
             EXECUTE FUNCTION refuse_old_worker()', name);
    END LOOP;
END
$$;
