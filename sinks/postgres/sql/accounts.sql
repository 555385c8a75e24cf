-- name: find_keys
SELECT {api_keys.columns} FROM api_keys
WHERE hash = ANY($1::bytea[]) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- name: has_keys
SELECT EXISTS (SELECT FROM api_keys);

-- name: add_key
INSERT INTO api_keys (id, tenant_id, name, prefix, hash, scopes, created_by, expires_at)
SELECT $1::text, $2::text, $3::text, $4::text, $5::bytea, $6::jsonb, $7::text, $8::timestamptz WHERE
(SELECT count(*) FROM api_keys
 WHERE tenant_id IS NOT DISTINCT FROM $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())) < $9
RETURNING {api_keys.columns};

-- name: key
SELECT {api_keys.columns} FROM api_keys WHERE id = $2 AND tenant_id IS NOT DISTINCT FROM $1;

-- name: keys
SELECT {api_keys.columns} FROM api_keys
WHERE tenant_id IS NOT DISTINCT FROM $1 AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::text))
ORDER BY created_at DESC, id DESC LIMIT $4;

-- name: revoke_key
WITH before AS (SELECT id, revoked_at FROM api_keys WHERE id = $2 AND tenant_id IS NOT DISTINCT FROM $1 FOR UPDATE)
UPDATE api_keys k SET revoked_at = coalesce(k.revoked_at, now()), revoked_by = coalesce(k.revoked_by, $3::text)
FROM before WHERE k.id = before.id
RETURNING before.revoked_at IS NULL AS was_valid;

-- name: rotate_key
-- With a time for which both are valid, it is one more key. Without, their number stays.
WITH old AS (
    SELECT * FROM api_keys
    WHERE id = $2 AND tenant_id IS NOT DISTINCT FROM $1
      AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
      AND ($7::float8 = 0 OR $8 > (
        SELECT count(*) FROM api_keys
        WHERE tenant_id IS NOT DISTINCT FROM $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())))
    FOR UPDATE),
ended AS (
    UPDATE api_keys k SET expires_at = least(k.expires_at, now() + $7::float8 * interval '1 second')
    FROM old WHERE k.id = old.id)
INSERT INTO api_keys (id, tenant_id, name, prefix, hash, scopes, created_by, expires_at)
SELECT $3::text, old.tenant_id, old.name, $4::text, $5::bytea, old.scopes, $6::text, now() + (old.expires_at - old.created_at) FROM old
RETURNING {api_keys.columns};

-- name: touch_keys
UPDATE api_keys SET last_used_at = date_trunc('minute', now())
WHERE id = ANY(ARRAY(
    SELECT id FROM api_keys
    WHERE id = ANY($1::text[]) AND (last_used_at IS NULL OR last_used_at < date_trunc('minute', now()))
    ORDER BY id FOR UPDATE SKIP LOCKED));

-- name: account_settings
SELECT tenant_id, version, settings, updated_by, updated_at FROM account_settings WHERE tenant_id = ANY($1::text[]);

-- name: lock_account_settings
SELECT tenant_id, version, settings, updated_by, updated_at FROM account_settings WHERE tenant_id = $1 FOR UPDATE;

-- name: save_account_settings
INSERT INTO account_settings AS s (tenant_id, version, settings, updated_by)
SELECT $1::text, 1, $2::jsonb, $4::text WHERE $3::bigint = 0 OR EXISTS (SELECT FROM account_settings WHERE tenant_id = $1)
ON CONFLICT (tenant_id) DO UPDATE
SET version = s.version + 1, settings = excluded.settings, updated_by = excluded.updated_by, updated_at = now()
WHERE s.version = $3
RETURNING tenant_id, version, settings, updated_by, updated_at;

-- name: count_requests
INSERT INTO api_usage_metrics AS m (tenant_id, key_id, route, status_class, minute, requests)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::timestamptz[], $6::bigint[])
ON CONFLICT (tenant_id, minute, key_id, route, status_class) DO UPDATE SET requests = m.requests + excluded.requests;
