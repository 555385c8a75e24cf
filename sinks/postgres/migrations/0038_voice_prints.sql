-- What the speakers of a run sound like, kept only with the tenant's consent. A row that a person has named is a part of
-- that name's voice print; it goes with the job that it comes from.

CREATE TABLE voice_prints (
    tenant_id   text NOT NULL,
    job_id      text NOT NULL,
    run         integer NOT NULL,
    -- What the run called the speaker, and what the transcript calls it now.
    speaker     text NOT NULL,
    label       text NOT NULL,
    named_at    timestamptz,
    named_by    text,
    model       text NOT NULL,
    -- Numbers of 4 bytes, little-endian; their squares add up to 1.
    vector      bytea NOT NULL,
    seconds     double precision NOT NULL,
    -- The name whose voice this speaker's is like, and how much.
    suggested   text,
    similarity  double precision,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, job_id, run, speaker)
);
CREATE INDEX voice_prints_named ON voice_prints (tenant_id, label) WHERE named_at IS NOT NULL;
CREATE INDEX voice_prints_suggested ON voice_prints (tenant_id, suggested) WHERE suggested IS NOT NULL;

GRANT SELECT, INSERT, UPDATE, DELETE ON voice_prints TO concord_worker, concord_writer;
GRANT SELECT ON voice_prints TO concord_tenant;
ALTER TABLE voice_prints ENABLE ROW LEVEL SECURITY;
CREATE POLICY worker ON voice_prints TO concord_worker USING (true) WITH CHECK (true);
CREATE POLICY tenant ON voice_prints FOR SELECT TO concord_tenant
    USING (tenant_id = current_setting('concord.tenant', true));
CREATE POLICY writer ON voice_prints TO concord_writer
    USING (tenant_id = current_setting('concord.tenant', true))
    WITH CHECK (tenant_id = current_setting('concord.tenant', true));

-- Consent is a tenant's setting. A change of it is noted, and its end deletes what was kept, in the same transaction,
-- whoever makes it and by whatever statement.
CREATE FUNCTION follow_consent_to_voices() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before boolean := TG_OP <> 'INSERT' AND OLD.settings @> '{"voice_prints": true}';
    after  boolean := TG_OP <> 'DELETE' AND NEW.settings @> '{"voice_prints": true}';
BEGIN
    IF NOT after THEN
        DELETE FROM voice_prints WHERE tenant_id = coalesce(NEW.tenant_id, OLD.tenant_id);
    END IF;
    IF before <> after THEN
        INSERT INTO audit_log (tenant_id, job_id, run, step, what, attempt, author)
        VALUES (coalesce(NEW.tenant_id, OLD.tenant_id), '', 0, 'voices',
                CASE WHEN after THEN 'allowed' ELSE 'withdrawn' END, 0, coalesce(NEW.updated_by, OLD.updated_by));
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER follow_consent AFTER INSERT OR UPDATE OR DELETE ON account_settings
    FOR EACH ROW EXECUTE FUNCTION follow_consent_to_voices();
