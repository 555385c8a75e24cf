-- name: adjudications
SELECT {adjudications.columns} FROM adjudications
WHERE tenant_id = $1 AND question = ANY($4::text[]) AND (fault IS NULL OR (job_id = $2 AND run = $3))
ORDER BY question;

-- name: keep_adjudications
-- Rows come in the order of the key, so that two writers of the same questions do not wait for each other in a circle.
{adjudications.insert}
{adjudications.update}, at = excluded.at
WHERE adjudications.fault IS NOT NULL;
