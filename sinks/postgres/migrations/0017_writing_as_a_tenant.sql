-- What people change over HTTP is written by a role that sees and writes only rows of the tenant in the setting concord.tenant, as
-- concord_tenant reads. It has what a step needs; a table that only workers use stays theirs.

DO $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('concord roles'));
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'concord_writer') THEN
        CREATE ROLE concord_writer NOLOGIN;
    END IF;
    EXECUTE format('GRANT concord_writer TO %I', session_user);
END
$$;
GRANT USAGE ON SCHEMA public TO concord_writer;

-- Events name their tenant; those of operators, which name none, are not a tenant's to write. Whether an event was handled is
-- known by its id alone, which is derived from the tenant.
ALTER TABLE outbox ENABLE ROW LEVEL SECURITY;
CREATE POLICY worker ON outbox TO concord_worker USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, DELETE ON inbox TO concord_writer;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['jobs', 'provider_requests', 'transcripts', 'files', 'enrichments', 'usage', 'audit_log', 'outbox',
                                'blob_intents'] LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO concord_writer', name);
        EXECUTE format(
            'CREATE POLICY writer ON %I TO concord_writer
             USING (tenant_id = current_setting(''concord.tenant'', true))
             WITH CHECK (tenant_id = current_setting(''concord.tenant'', true))', name);
    END LOOP;
END
$$;
