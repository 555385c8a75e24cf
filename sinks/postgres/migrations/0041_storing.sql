-- A conversation is `storing` from when what was said is stored, which the progress of its step `fetch` tells: no stage has ever written a
-- step `store`. Otherwise the view is that of 0032.
CREATE OR REPLACE VIEW conversation_processing WITH (security_invoker = true) AS
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
        WHEN j.steps #>> '{fetch,state}' = 'done' OR j.steps #>> '{fetch,progress}' IS NOT NULL THEN 'storing'
        WHEN j.status = 'failed' THEN 'extracting'
        WHEN j.status <> 'uploaded' THEN 'storing'
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
                ELSE CASE j.status WHEN 'uploaded' THEN 'fetch' WHEN 'transcribing' THEN 'transcribe'
                                   WHEN 'reconciling' THEN 'reconcile' ELSE 'persist' END END AS current_step) AS s
WHERE starts_with(j.audio_uri, 'elevenlabs:');
