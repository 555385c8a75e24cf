-- name: lock_consents
-- Which of these tenants allow that voices are kept. Until the transaction ends, none can withdraw that.
SELECT tenant_id FROM account_settings WHERE tenant_id = ANY($1::text[]) AND settings @> '{"voice_prints": true}'
ORDER BY tenant_id FOR SHARE;

-- name: insert_voice_prints
{voice_prints.insert}
ON CONFLICT (tenant_id, job_id, run, speaker) DO NOTHING;

-- name: drop_earlier_voices
-- A later run has begun: nobody can name the speakers of the runs before any more.
DELETE FROM voice_prints v USING unnest($1::text[], $2::text[], $3::int[]) AS w (tenant_id, job_id, run)
WHERE (v.tenant_id, v.job_id) = (w.tenant_id, w.job_id) AND v.run < w.run AND v.named_at IS NULL;

-- name: rename_voice
-- $6: whether $5 is a name, and not a mere letter.
UPDATE voice_prints SET label = $5, named_at = CASE WHEN $6::boolean THEN clock_timestamp() END,
    named_by = CASE WHEN $6::boolean THEN $7::text END
WHERE tenant_id = $1 AND job_id = $2 AND run = $3 AND label = $4 AND label <> $5
RETURNING speaker;

-- name: named_voices
SELECT {voice_prints.columns} FROM voice_prints WHERE tenant_id = $1 AND model = $2 AND named_at IS NOT NULL
ORDER BY named_at DESC, job_id, run, speaker LIMIT $3;

-- name: list_voices
SELECT v.label AS name, count(DISTINCT v.job_id)::int AS recordings, sum(v.seconds) AS seconds,
    min(v.named_at) AS created_at, max(v.named_at) AS named_at,
    (SELECT max(s.created_at) FROM voice_prints s
     WHERE s.tenant_id = $1 AND s.suggested = v.label AND s.created_at > min(v.named_at)) AS recognised_at
FROM voice_prints v WHERE v.tenant_id = $1 AND v.named_at IS NOT NULL
GROUP BY v.label ORDER BY v.label COLLATE "C" LIMIT $2;

-- name: delete_voices
-- Those of one name ($2) with the speakers in whom that voice was recognised, or all of the tenant's.
DELETE FROM voice_prints WHERE tenant_id = $1
  AND ($2::text IS NULL OR (named_at IS NOT NULL AND label = $2) OR (named_at IS NULL AND suggested = $2))
RETURNING named_at IS NOT NULL AS was_named;

-- name: read_voice_suggestions
-- A suggestion counts as long as there is a print of the name that was there before.
SELECT v.label AS speaker, v.suggested AS name, v.similarity FROM voice_prints v
WHERE (v.tenant_id, v.job_id, v.run) = ($1, $2, $3) AND v.named_at IS NULL AND v.suggested <> v.label
  AND EXISTS (SELECT FROM voice_prints p WHERE p.tenant_id = $1 AND p.label = v.suggested AND p.named_at <= v.created_at)
ORDER BY v.label COLLATE "C", v.similarity DESC;

-- name: read_voice_history
SELECT at, what, author FROM audit_log WHERE tenant_id = $1 AND job_id = '' AND step = 'voices' ORDER BY id DESC LIMIT $2;
