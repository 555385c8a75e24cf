-- Jobs that were completed over the past year, and transcripts of some: what `bench.api` asks for.
INSERT INTO jobs (tenant_id, job_id, reference, run, status, version, filename, audio_uri, original_uri, content_type, duration_ms,
                  language, priority, options, metadata, steps, enrichment, created_at, updated_at, completed_at, code, reason)
SELECT 'tenant-' || n % :tenants, '00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'), 'order-' || n, 1,
       CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'completed' END, 9, 'call-' || n || '.wav', 's3://calls/' || n || '.wav',
       'file:///original/' || n || '.wav', 'audio/x-wav', 300000 + n % 600000, 'en', 5, '{}',
       jsonb_build_object('agent', 'agent-' || n % 500, 'queue', CASE n % 3 WHEN 0 THEN 'sales' WHEN 1 THEN 'service' ELSE 'billing' END),
       '{"intake": {"state": "done", "attempts": 1}, "reconcile": {"state": "done", "attempts": 1}, "persist": {"state": "done", "attempts": 1}}',
       '{}', at, at + interval '40 s', at + interval '40 s', CASE WHEN n % 50 = 0 THEN 'refused_media' END, NULL
FROM (SELECT n, now() - n * (interval '365 days' / :jobs) AS at FROM generate_series(0, :jobs - 1) AS n) AS numbered;

INSERT INTO transcripts (tenant_id, job_id, run, text, words, speakers, segments, language, confidence, agreement, method,
                         provider_confidences, reconciliation_notes, quality, raw_transcript_uri, agent_optimized_uri, duration_ms)
SELECT 'tenant-' || n % :tenants, '00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'), 1, repeat('thank you for calling ', 100), 400,
       '["A", "B"]',
       (SELECT jsonb_agg(jsonb_build_object('start_ms', s * 8000, 'end_ms', s * 8000 + 7000, 'speaker', CASE s % 2 WHEN 0 THEN 'A' ELSE 'B' END,
                                            'text', repeat('thank you for calling ', 4), 'confidence', 0.9)) FROM generate_series(0, 24) AS s),
       'en', 0.9, 0.9, 'calibrated', '{"a": 0.9, "b": 0.8}', '[]', '{"confidence": 0.9}', 'file:///raw/' || n, 'file:///optimized/' || n, 300000
FROM generate_series(0, :transcripts - 1) AS n;

ANALYZE;
