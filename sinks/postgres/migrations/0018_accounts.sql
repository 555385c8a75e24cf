-- API keys, tenants' settings, and how often keys use the HTTP interface.

CREATE TABLE api_keys (
    id            text PRIMARY KEY,
    -- NULL: an operator's, which no tenant's request reads or writes.
    tenant_id     text,
    name          text NOT NULL,
    prefix        text NOT NULL,
    hash          bytea NOT NULL,
    scopes        jsonb NOT NULL,
    created_by    text NOT NULL,
    expires_at    timestamptz,
    created_at    timestamptz NOT NULL DEFAULT now(),
    last_used_at  timestamptz,
    revoked_at    timestamptz,
    revoked_by    text
);
-- A revoked key is not in the index: to look it up costs what an unknown one costs.
CREATE UNIQUE INDEX api_keys_by_hash ON api_keys (hash) WHERE revoked_at IS NULL;
CREATE INDEX api_keys_of_tenant ON api_keys (tenant_id, created_at DESC, id DESC);

CREATE TABLE account_settings (
    tenant_id   text PRIMARY KEY,
    version     bigint NOT NULL,
    settings    jsonb NOT NULL,
    updated_by  text NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_usage_metrics (
    tenant_id     text NOT NULL,
    key_id        text NOT NULL,
    route         text NOT NULL,
    status_class  smallint NOT NULL,
    minute        timestamptz NOT NULL,
    requests      bigint NOT NULL,
    PRIMARY KEY (tenant_id, minute, key_id, route, status_class)
);
CREATE INDEX api_usage_metrics_by_age ON api_usage_metrics (minute);

-- Workers keep keys and settings for some seconds; they are told of every change, by whomever it is made.
CREATE FUNCTION tell_account_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'api_keys' THEN
        PERFORM pg_notify('concord_accounts', 'keys');
    ELSE
        PERFORM pg_notify('concord_accounts', 'settings ' || coalesce(NEW.tenant_id, OLD.tenant_id));
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER tell_change AFTER INSERT OR DELETE OR UPDATE OF revoked_at, expires_at, scopes, hash ON api_keys
    FOR EACH ROW EXECUTE FUNCTION tell_account_change();
CREATE TRIGGER tell_change AFTER INSERT OR DELETE OR UPDATE ON account_settings
    FOR EACH ROW EXECUTE FUNCTION tell_account_change();

GRANT SELECT, INSERT, UPDATE, DELETE ON api_keys, account_settings, api_usage_metrics TO concord_worker;
GRANT SELECT, INSERT, UPDATE ON api_keys, account_settings TO concord_writer;
GRANT SELECT ON account_settings, api_usage_metrics TO concord_tenant;
GRANT SELECT ON api_usage_metrics TO concord_writer;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['api_keys', 'account_settings', 'api_usage_metrics'] LOOP
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
