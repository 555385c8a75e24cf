-- name: stuck_jobs
-- Open jobs that have not changed for long, for which nothing waits in the outbox, and no leased task runs (its event is in its
-- handler for most of the time). A recognizer's request has a topic of its own; all else of a stage is on the topics $4.
SELECT {jobs.columns as j}, q.providers, q.without_deadline, CASE WHEN r.version = j.version THEN r.times ELSE 0 END AS times
FROM jobs j
LEFT JOIN revivals r USING (tenant_id, job_id)
CROSS JOIN LATERAL (SELECT concat_ws('/', j.tenant_id, j.job_id, j.run) AS run) q0
CROSS JOIN LATERAL (
    SELECT array(
        SELECT p.provider FROM provider_requests p
        WHERE (p.tenant_id, p.job_id, p.run) = (j.tenant_id, j.job_id, j.run) AND j.status = 'transcribing'
          AND p.state IN ('waiting', 'intended', 'parked', 'submitted')
          AND NOT EXISTS (SELECT FROM outbox o WHERE (o.tenant_id, o.job_id) = (j.tenant_id, j.job_id)
                          AND o.topic = 'asr.requests.' || p.provider)
          AND NOT EXISTS (SELECT FROM leases l WHERE l.until > clock_timestamp()
                          AND l.key IN ('transcribe/' || q0.run || '/' || p.provider, 'upload/' || q0.run || '/' || p.provider))
        ORDER BY p.provider) AS providers,
    j.status = 'transcribing' AND NOT EXISTS (
        SELECT FROM outbox o WHERE (o.tenant_id, o.job_id, o.topic) = (j.tenant_id, j.job_id, 'reconcile.due') AND o.run = j.run
    ) AS without_deadline) q
WHERE j.status = $1 AND j.status NOT IN ('completed', 'failed') AND j.updated_at < $2
  AND (r.at IS NULL OR r.at < $2)
  AND CASE WHEN j.status = 'transcribing' THEN cardinality(q.providers) > 0 OR q.without_deadline
           ELSE NOT EXISTS (SELECT FROM outbox o WHERE (o.tenant_id, o.job_id) = (j.tenant_id, j.job_id)
                            AND o.topic = ANY($4::text[]) AND o.run = j.run)
               AND NOT EXISTS (SELECT FROM leases l WHERE l.until > clock_timestamp()
                               AND l.key IN ('fetch/' || q0.run, 'reconcile/' || q0.run)) END
ORDER BY j.updated_at LIMIT $3;

-- name: note_revivals
INSERT INTO revivals AS r (tenant_id, job_id, version, times)
SELECT tenant_id, job_id, version, 1 FROM unnest($1::text[], $2::text[], $3::bigint[]) AS w (tenant_id, job_id, version)
ON CONFLICT (tenant_id, job_id) DO UPDATE
SET times = CASE WHEN r.version = excluded.version THEN r.times + 1 ELSE 1 END, version = excluded.version, at = excluded.at;

-- name: stuck_enrichments
-- Enrichments that have not ended nor changed for long, that wait neither for an event in the outbox nor for another enrichment of
-- the kinds $4, and that no leased task makes, with how often that was found.
SELECT {enrichments.columns as e}, e.revivals FROM enrichments e
WHERE e.kind = $1 AND e.state NOT IN ('done', 'failed') AND e.updated_at < $2
  AND (e.revived_at IS NULL OR e.revived_at < $2)
  AND NOT EXISTS (SELECT FROM outbox o WHERE (o.tenant_id, o.job_id, o.run) = (e.tenant_id, e.job_id, e.run)
                  AND o.topic = ANY (ARRAY['persisted', 'transcript.edited', 'enrichment.failed', e.kind || '.due']))
  AND NOT EXISTS (SELECT FROM enrichments w WHERE (w.tenant_id, w.job_id, w.run) = (e.tenant_id, e.job_id, e.run)
                  AND w.kind = ANY ($4::text[]) AND w.state NOT IN ('done', 'failed'))
  AND NOT EXISTS (SELECT FROM leases l WHERE l.until > clock_timestamp()
                  AND l.key IN (concat_ws('/', e.kind, e.tenant_id, e.job_id, e.run),
                                concat_ws('/', e.kind, e.tenant_id, e.job_id, e.run, e.transcript_version)))
ORDER BY e.updated_at LIMIT $3;

-- name: note_enrichment_revivals
UPDATE enrichments e SET revivals = e.revivals + 1, revived_at = clock_timestamp()
FROM unnest($1::text[], $2::text[], $3::int[], $4::text[]) AS w (tenant_id, job_id, run, kind)
WHERE (e.tenant_id, e.job_id, e.run, e.kind) = (w.tenant_id, w.job_id, w.run, w.kind);
