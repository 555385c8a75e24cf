-- The fleet's tables. Applied once, in one transaction, under an advisory lock, by `sinks/migrate.py`.
--
-- Two roles that own nothing stand between any connection and the rows: concord_worker (the stages: all tenants) and
-- concord_tenant (everything asked over HTTP: only rows of the tenant in the setting concord.tenant). Connections SET ROLE to
-- one of them, so that row-level security holds even where the login owns the tables.

DO $$
BEGIN
    -- Roles belong to the cluster, not the database: another Concord database may have made them, even at this moment.
    PERFORM pg_advisory_xact_lock(hashtext('concord roles'));
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'concord_worker') THEN
        CREATE ROLE concord_worker NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'concord_tenant') THEN
        CREATE ROLE concord_tenant NOLOGIN;
    END IF;
    EXECUTE format('GRANT concord_worker, concord_tenant TO %I', session_user);
END
$$;

CREATE TABLE jobs (
    job_id        text PRIMARY KEY,
    tenant_id     text NOT NULL,
    run           integer NOT NULL CHECK (run > 0),
    status        text NOT NULL
        CHECK (status IN ('uploaded', 'transcribing', 'reconciling', 'persisting', 'completed', 'failed')),
    version       bigint NOT NULL,
    filename      text NOT NULL,
    audio_uri     text NOT NULL,
    original_uri  text,
    content_type  text,
    duration_ms   bigint,
    language      text NOT NULL,
    priority      smallint NOT NULL,
    options       jsonb NOT NULL,
    metadata      jsonb NOT NULL,
    steps         jsonb NOT NULL,
    reason        text,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    completed_at  timestamptz
);
CREATE INDEX jobs_of_tenant ON jobs (tenant_id, created_at DESC, job_id);
CREATE INDEX jobs_of_tenant_by_status ON jobs (tenant_id, status, created_at DESC, job_id);
CREATE INDEX jobs_open ON jobs (status) WHERE status NOT IN ('completed', 'failed');

CREATE TABLE provider_requests (
    job_id          text NOT NULL REFERENCES jobs ON DELETE CASCADE,
    run             integer NOT NULL,
    provider        text NOT NULL,
    tenant_id       text NOT NULL,
    state           text NOT NULL CHECK (state IN ('waiting', 'intended', 'submitted', 'done', 'failed')),
    marker          text NOT NULL,
    provider_id     text,
    token           bigint NOT NULL,
    claimed_until   timestamptz,
    hypothesis_uri  text,
    confidence      double precision,
    word_count      integer,
    language        text,
    error           text,
    submitted_at    timestamptz,
    finished_at     timestamptz,
    PRIMARY KEY (job_id, run, provider)
);

CREATE TABLE transcripts (
    job_id                text NOT NULL REFERENCES jobs ON DELETE CASCADE,
    run                   integer NOT NULL,
    tenant_id             text NOT NULL,
    text                  text NOT NULL,
    words                 integer NOT NULL,
    speakers              jsonb NOT NULL,
    segments              jsonb NOT NULL,
    language              text,
    confidence            double precision,
    agreement             double precision,
    method                text NOT NULL,
    provider_confidences  jsonb NOT NULL,
    reconciliation_notes  jsonb NOT NULL,
    quality               jsonb NOT NULL,
    raw_transcript_uri    text NOT NULL,
    agent_optimized_uri   text NOT NULL,
    duration_ms           bigint,
    created_at            timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, run)
);
CREATE INDEX transcripts_of_tenant ON transcripts (tenant_id, created_at DESC);

CREATE TABLE files (
    job_id        text NOT NULL REFERENCES jobs ON DELETE CASCADE,
    run           integer NOT NULL,
    kind          text NOT NULL,
    tenant_id     text NOT NULL,
    uri           text NOT NULL,
    size_bytes    bigint NOT NULL,
    content_type  text NOT NULL,
    sha256        text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, run, kind)
);

CREATE TABLE audit_log (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    tenant_id    text NOT NULL,
    job_id       text NOT NULL,
    run          integer NOT NULL,
    step         text NOT NULL,
    what         text NOT NULL,
    duration_ms  double precision,
    attempt      integer NOT NULL,
    error        text
);
CREATE INDEX audit_log_of_job ON audit_log (job_id, id);

-- Every event that was handled, by the stage that did: the reason why a redelivery does nothing.
CREATE TABLE inbox (
    stage     text NOT NULL,
    event_id  uuid NOT NULL,
    at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stage, event_id)
);
CREATE INDEX inbox_by_age ON inbox USING brin (at);

-- Everything that is to be published, now or later.
CREATE TABLE outbox (
    id        bigint GENERATED ALWAYS AS IDENTITY,
    shard     smallint NOT NULL,
    due_at    timestamptz NOT NULL,
    event_id  uuid NOT NULL,
    topic     text NOT NULL,
    key       bytea,
    value     bytea,
    headers   bytea NOT NULL,
    PRIMARY KEY (shard, id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX outbox_due ON outbox (shard, due_at, id);
CREATE INDEX outbox_event ON outbox (event_id);

-- The newest batch that the relay of each shard has claimed, with the rows in it. See agents/relay.py.
CREATE TABLE relay_batches (
    shard  smallint PRIMARY KEY,
    batch  bigint NOT NULL,
    ids    bigint[] NOT NULL
);

-- Exclusive rights to long work that goes on outside its event, until they run out.
CREATE TABLE leases (
    key     text PRIMARY KEY,
    holder  text NOT NULL,
    until   timestamptz NOT NULL
);

GRANT USAGE ON SCHEMA public TO concord_worker, concord_tenant;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO concord_worker;
GRANT SELECT ON jobs, provider_requests, transcripts, files, audit_log TO concord_tenant;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['jobs', 'provider_requests', 'transcripts', 'files', 'audit_log'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY worker ON %I TO concord_worker USING (true) WITH CHECK (true)', name);
        EXECUTE format(
            'CREATE POLICY tenant ON %I FOR SELECT TO concord_tenant
             USING (tenant_id = current_setting(''concord.tenant'', true))', name);
    END LOOP;
END
$$;
