-- name: claim_key
-- The key as it is after the claim, or as another has it. Nothing is returned if another claims it at this moment.
WITH claimed AS (
    INSERT INTO idempotency_keys (tenant_id, key, fingerprint, claim, claimed_until)
    VALUES ($1, $2, $3, $4, clock_timestamp() + interval '1 second' * $5::float8)
    ON CONFLICT (tenant_id, key) DO UPDATE SET fingerprint = excluded.fingerprint, claim = excluded.claim,
        claimed_until = excluded.claimed_until, status = NULL, headers = NULL, body = NULL,
        created_at = CASE WHEN idempotency_keys.created_at < clock_timestamp() - interval '1 day' * $6::float8
                          THEN clock_timestamp() ELSE idempotency_keys.created_at END
    WHERE idempotency_keys.created_at < clock_timestamp() - interval '1 day' * $6::float8
       OR idempotency_keys.status IS NULL AND idempotency_keys.fingerprint = excluded.fingerprint
          AND (idempotency_keys.claimed_until < clock_timestamp() OR idempotency_keys.claim = excluded.claim)
    RETURNING fingerprint, claim, created_at, status, headers, body
)
SELECT * FROM claimed
UNION ALL
SELECT fingerprint, claim, created_at, status, headers, body FROM idempotency_keys
WHERE tenant_id = $1 AND key = $2 AND NOT EXISTS (SELECT FROM claimed);

-- name: answer_key
UPDATE idempotency_keys SET claimed_until = NULL, status = $4, headers = $5, body = $6
WHERE tenant_id = $1 AND key = $2 AND claim = $3;

-- name: release_key
UPDATE idempotency_keys SET claimed_until = '-infinity' WHERE tenant_id = $1 AND key = $2 AND claim = $3;

-- name: forget_key
DELETE FROM idempotency_keys WHERE tenant_id = $1 AND key = $2 AND claim = $3;
