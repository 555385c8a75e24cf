-- name: insert_mail
{mails.insert} ON CONFLICT DO NOTHING;

-- name: claim_mail
-- The next attempt, at a mail that waits; refused if another has begun since it was read.
UPDATE mails SET attempts = attempts + 1, transcript_version = $4, generation = $5, message_id = $6, updated_at = clock_timestamp()
WHERE (tenant_id, job_id, run) = ($1, $2, $3) AND attempts = $7 AND state = 'waiting'
RETURNING {mails.columns};

-- name: keep_mail
UPDATE mails SET state = $5, waiting = $6, accepted = $7, refused = $8, answer = $9, updated_at = clock_timestamp()
WHERE (tenant_id, job_id, run) = ($1, $2, $3) AND attempts = $4
RETURNING run;

-- name: mail
SELECT {mails.columns} FROM mails WHERE (tenant_id, job_id, run) = ($1, $2, $3);

-- name: mails
SELECT {mails.columns} FROM mails WHERE state = ANY ($1::text[]) ORDER BY updated_at DESC LIMIT $2;

-- name: address_mails
-- The number of attempts goes on, so that an attempt of before writes nothing over it.
{mails.insert}
ON CONFLICT (tenant_id, job_id, run) DO UPDATE SET
    transcript_version = excluded.transcript_version, generation = excluded.generation, message_id = excluded.message_id,
    state = 'waiting', waiting = excluded.waiting, accepted = '[]', refused = '{}', answer = NULL, updated_at = clock_timestamp();
