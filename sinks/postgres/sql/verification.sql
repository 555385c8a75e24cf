-- name: unended_requests
-- Requests of runs that have ended, of which it is not known how they ended: they may have been charged.
SELECT p.tenant_id, p.job_id, p.run, p.provider, p.state, p.marker, p.provider_id, p.submitted_at
FROM provider_requests p JOIN jobs j USING (tenant_id, job_id)
WHERE (p.state IN ('intended', 'parked', 'submitted') AND (p.run < j.run OR j.status IN ('completed', 'failed')))
   OR (p.abandoned_at IS NOT NULL AND p.provider_id IS NULL AND p.run = j.run)
ORDER BY p.tenant_id, p.job_id, p.run, p.provider LIMIT $1;

-- name: without_transcript
-- Jobs that are completed and have no transcript.
SELECT j.tenant_id, j.job_id, j.run, j.completed_at FROM jobs j
WHERE j.status = 'completed'
  AND NOT EXISTS (SELECT FROM transcripts t WHERE (t.tenant_id, t.job_id, t.run) = (j.tenant_id, j.job_id, j.run))
ORDER BY j.tenant_id, j.job_id LIMIT $1;

-- name: known_blobs
-- What jobs refer to: their files, and the blobs that their rows name.
SELECT w.tenant_id, w.job_id, j.status, j.run,
       array(SELECT f.uri FROM files f WHERE (f.tenant_id, f.job_id) = (w.tenant_id, w.job_id)) AS files,
       array_remove(ARRAY[j.audio_uri, j.original_uri], NULL) AS named
FROM unnest($1::text[], $2::text[]) AS w (tenant_id, job_id) LEFT JOIN jobs j USING (tenant_id, job_id)
ORDER BY w.tenant_id, w.job_id;

-- name: files_after
-- Every stored file, a page at a time.
SELECT tenant_id, job_id, run, kind, uri FROM files WHERE (tenant_id, job_id, run, kind) > ($1, $2, $3, $4)
ORDER BY tenant_id, job_id, run, kind LIMIT $5;
