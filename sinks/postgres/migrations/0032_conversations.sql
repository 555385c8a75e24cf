-- Conversations of ElevenLabs' agents: what is read of them, which URLs of their files were issued, and up to when agents' lists were read.
--
-- Views need PostgreSQL 15: they are read with their reader's own rights and policies (`security_invoker`).

-- Lists of conversations, by creation and by the last change. Partial: the rows of uploads are in neither.
CREATE INDEX conversations_listed ON jobs (tenant_id, created_at DESC, job_id) WHERE starts_with(audio_uri, 'elevenlabs:');
CREATE INDEX conversations_changed ON jobs (tenant_id, updated_at) WHERE starts_with(audio_uri, 'elevenlabs:');
-- By which retention finds what still has files: an entry goes with its file.
CREATE INDEX files_of_conversations ON files (tenant_id, created_at) WHERE kind = 'conversation';

-- The newest URL of a conversation's file that was issued, with its signature. It goes with the file.
CREATE TABLE issued_urls (
    tenant_id   text NOT NULL,
    job_id      text NOT NULL,
    uri         text NOT NULL,
    url         text NOT NULL,
    issued_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, job_id, uri)
);
CREATE INDEX issued_urls_by_age ON issued_urls (expires_at);

-- The agents of tenants' settings whose list was read: conversations that began before `looked_to` are known.
CREATE TABLE agent_looks (
    tenant_id   text NOT NULL,
    agent_id    text NOT NULL,
    looked_to   timestamptz NOT NULL,
    -- When it may be claimed again, and the newest claim.
    due_at      timestamptz NOT NULL,
    token       bigint NOT NULL,
    -- What the last look has begun, and why it did not end well.
    begun       integer NOT NULL DEFAULT 0,
    error       text,
    PRIMARY KEY (tenant_id, agent_id)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON issued_urls, agent_looks TO concord_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON issued_urls TO concord_writer;
GRANT SELECT ON issued_urls, agent_looks TO concord_tenant;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['issued_urls', 'agent_looks'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY worker ON %I TO concord_worker USING (true) WITH CHECK (true)', name);
        EXECUTE format('CREATE POLICY tenant ON %I FOR SELECT TO concord_tenant
             USING (tenant_id = current_setting(''concord.tenant'', true))', name);
    END LOOP;
END
$$;
CREATE POLICY writer ON issued_urls TO concord_writer
    USING (tenant_id = current_setting('concord.tenant', true)) WITH CHECK (tenant_id = current_setting('concord.tenant', true));

-- How far each conversation is: what `schemas.conversations.processing` derives from a job's row, and a test compares with it.
CREATE VIEW conversation_processing WITH (security_invoker = true) AS
SELECT 'proc_' || replace(j.job_id, '-', '') AS processing_id,
       j.tenant_id AS account_id,
       substr(j.audio_uri, 12) AS conversation_id,
       j.options #>> '{mail_to,0}' AS email_id,
       s.status,
       CASE s.reached WHEN 'pending' THEN 0 WHEN 'extracting' THEN 10 WHEN 'storing' THEN 40 WHEN 'summarizing' THEN 60
                      WHEN 'generating_report' THEN 75 WHEN 'sending_email' THEN 90 ELSE 100 END AS progress,
       s.current_step,
       CASE WHEN j.status = 'failed' THEN j.reason
            WHEN j.status = 'completed' THEN j.enrichment -> coalesce(k.open, k.failed) ->> 'error'
            ELSE j.steps -> s.current_step ->> 'error' END AS error_message,
       CASE WHEN s.status NOT IN ('failed', 'cancelled') THEN NULL
            WHEN j.status = 'failed' THEN coalesce(j.code, 'internal_error')
            ELSE coalesce(j.enrichment -> k.failed ->> 'code', 'internal_error') END AS error_code,
       j.created_at,
       j.updated_at,
       CASE WHEN s.status IN ('failed', 'cancelled', 'completed', 'archived') THEN
            CASE WHEN j.status = 'failed' THEN j.completed_at ELSE greatest(j.completed_at, k.finished_at) END END AS completed_at,
       j.tenant_id,
       j.job_id,
       j.run
FROM jobs j
CROSS JOIN LATERAL (
    SELECT (array_agg(kind ORDER BY n) FILTER (WHERE j.enrichment -> kind ->> 'state' NOT IN ('done', 'failed')))[1] AS open,
           (array_agg(kind ORDER BY n) FILTER (WHERE j.enrichment -> kind ->> 'state' = 'failed'))[1] AS failed,
           max((j.enrichment -> kind ->> 'finished_at')::timestamptz) AS finished_at
    FROM unnest(ARRAY['summary', 'report', 'mail']) WITH ORDINALITY AS kinds (kind, n)) AS k
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN j.status = 'completed' THEN
            CASE coalesce(k.open, k.failed) WHEN 'summary' THEN 'summarizing' WHEN 'report' THEN 'generating_report'
                                            WHEN 'mail' THEN 'sending_email' ELSE 'completed' END
        WHEN j.status = 'failed' THEN CASE j.steps #>> '{fetch,state}' WHEN 'done' THEN 'storing' ELSE 'extracting' END
        WHEN j.status <> 'uploaded' OR j.steps ? 'store' OR j.steps #>> '{fetch,state}' = 'done' THEN 'storing'
        WHEN coalesce(j.steps #>> '{fetch,state}', 'waiting') = 'waiting' THEN 'pending'
        ELSE 'extracting' END AS reached) AS r
CROSS JOIN LATERAL (
    SELECT r.reached,
           CASE WHEN j.status = 'failed' THEN CASE j.code WHEN 'cancelled' THEN 'cancelled' ELSE 'failed' END
                WHEN j.status <> 'completed' OR k.open IS NOT NULL THEN r.reached
                WHEN k.failed IS NOT NULL THEN CASE j.enrichment -> k.failed ->> 'code' WHEN 'cancelled' THEN 'cancelled' ELSE 'failed' END
                WHEN EXISTS (SELECT FROM files f WHERE (f.tenant_id, f.job_id) = (j.tenant_id, j.job_id)) THEN 'completed'
                ELSE 'archived' END AS status,
           CASE WHEN j.status = 'completed' THEN coalesce(k.open, k.failed)
                WHEN j.status = 'failed' THEN coalesce(
                    (SELECT name FROM jsonb_each(j.steps) AS step (name, of) WHERE of ->> 'state' = 'failed'
                     ORDER BY (of ->> 'finished_at')::timestamptz DESC NULLS LAST, name COLLATE "C" DESC LIMIT 1), 'fetch')
                WHEN r.reached <> 'storing' THEN 'fetch'
                ELSE CASE j.status WHEN 'uploaded' THEN 'store' WHEN 'transcribing' THEN 'transcribe'
                                   WHEN 'reconciling' THEN 'reconcile' ELSE 'persist' END END AS current_step) AS s
WHERE starts_with(j.audio_uri, 'elevenlabs:');

-- Their files: those for the account by their kind, the others by our names for them.
CREATE VIEW conversation_files WITH (security_invoker = true) AS
SELECT 'proc_' || replace(f.job_id, '-', '') AS processing_id,
       f.tenant_id AS account_id,
       substr(j.audio_uri, 12) AS conversation_id,
       CASE substring(f.uri FROM '/(transcripts|audio|reports)/' || substr(j.audio_uri, 12) || '\.(?:txt|mp3|pdf)$')
            WHEN 'transcripts' THEN 'transcript' WHEN 'audio' THEN 'audio' WHEN 'reports' THEN 'report' ELSE f.kind END AS file_type,
       f.uri AS location,
       f.size_bytes,
       f.content_type,
       f.sha256 AS checksum,
       f.created_at,
       u.issued_at AS url_issued_at,
       u.expires_at AS url_expires_at,
       f.tenant_id,
       f.job_id,
       f.run
FROM jobs j
JOIN files f ON (f.tenant_id, f.job_id) = (j.tenant_id, j.job_id)
LEFT JOIN issued_urls u ON (u.tenant_id, u.job_id, u.uri) = (f.tenant_id, f.job_id, f.uri)
WHERE starts_with(j.audio_uri, 'elevenlabs:');

-- What was done about them, step by step.
CREATE VIEW processing_audit_log WITH (security_invoker = true) AS
SELECT a.id,
       'proc_' || replace(a.job_id, '-', '') AS processing_id,
       a.tenant_id AS account_id,
       substr(j.audio_uri, 12) AS conversation_id,
       a.step,
       a.what AS event,
       a.at AS created_at,
       a.duration_ms,
       a.attempt,
       a.error AS error_message,
       a.author,
       a.tenant_id,
       a.job_id,
       a.run
FROM jobs j
JOIN audit_log a ON (a.tenant_id, a.job_id) = (j.tenant_id, j.job_id)
WHERE starts_with(j.audio_uri, 'elevenlabs:');

GRANT SELECT ON conversation_processing, conversation_files, processing_audit_log TO concord_worker, concord_tenant, concord_writer;
