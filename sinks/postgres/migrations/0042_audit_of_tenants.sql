-- What is changed of a tenant's keys, settings and webhooks is in the audit log, too: as entries of no job (job_id is empty, run is
-- 0), which name what they are about. Operators' keys belong to the tenant `*`.
ALTER TABLE audit_log ADD COLUMN subject text, ADD COLUMN details jsonb;
