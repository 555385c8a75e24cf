-- Webhooks: tenants' endpoints, their secrets, and a row for each event that one of them is to be told. Such a row is inserted in
-- the transaction that puts the event into the outbox, so that no kill comes between the two.

CREATE TABLE webhooks (
    tenant_id text NOT NULL,
    webhook_id text PRIMARY KEY,
    url text NOT NULL,
    events jsonb NOT NULL,
    description text NOT NULL,
    active boolean NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    failing_since timestamptz,
    paused_at timestamptz,
    paused_reason text
);
CREATE INDEX webhooks_of_tenant ON webhooks (tenant_id, created_at);

CREATE TABLE webhook_secrets (
    tenant_id text NOT NULL,
    webhook_id text NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    secret text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz
);
CREATE INDEX webhook_secrets_of ON webhook_secrets (webhook_id);

CREATE TABLE webhook_deliveries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id text NOT NULL,
    webhook_id text NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    event_id text NOT NULL,
    type text NOT NULL,
    job_id text,
    body text NOT NULL,
    state text NOT NULL DEFAULT 'pending',
    failures int NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    delivered_at timestamptz,
    token bigint NOT NULL DEFAULT 0,
    UNIQUE (webhook_id, event_id)
);
-- The endpoints that wait for something, what is due there, and what is first of a job.
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook_id, due_at, id) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_order ON webhook_deliveries (webhook_id, job_id, id) WHERE state = 'pending';
-- The history, newest first; and a job's deliveries, for its deletion.
CREATE INDEX webhook_deliveries_history ON webhook_deliveries (webhook_id, id);
CREATE INDEX webhook_deliveries_of_job ON webhook_deliveries (tenant_id, job_id);

CREATE TABLE webhook_attempts (
    tenant_id text NOT NULL,
    delivery_id bigint NOT NULL REFERENCES webhook_deliveries ON DELETE CASCADE,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    status int,
    duration_ms float8 NOT NULL,
    answer text NOT NULL,
    error text
);
CREATE INDEX webhook_attempts_of ON webhook_attempts (delivery_id, at);

GRANT SELECT, INSERT, UPDATE, DELETE ON webhooks, webhook_secrets, webhook_deliveries, webhook_attempts TO concord_worker;
GRANT SELECT ON webhooks, webhook_deliveries, webhook_attempts TO concord_tenant;
GRANT SELECT, INSERT, UPDATE, DELETE ON webhooks, webhook_deliveries TO concord_writer;
GRANT SELECT ON webhook_attempts TO concord_writer;
-- A secret is shown once, by what made it: nothing that people ask over HTTP can read it again.
GRANT SELECT (tenant_id, webhook_id, expires_at), INSERT, UPDATE (expires_at) ON webhook_secrets TO concord_writer;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['webhooks', 'webhook_secrets', 'webhook_deliveries', 'webhook_attempts'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY worker ON %I TO concord_worker USING (true) WITH CHECK (true)', name);
        EXECUTE format('CREATE POLICY tenant ON %I FOR SELECT TO concord_tenant
                        USING (tenant_id = current_setting(''concord.tenant'', true))', name);
        EXECUTE format('CREATE POLICY writer ON %I TO concord_writer
                        USING (tenant_id = current_setting(''concord.tenant'', true))
                        WITH CHECK (tenant_id = current_setting(''concord.tenant'', true))', name);
    END LOOP;
END
$$;
