-- name: lock_retention
-- Held until the transaction ends: one worker deletes old rows at a time.
SELECT pg_try_advisory_xact_lock(hashtext('concord retention'));

-- name: expire_inbox
WITH gone AS (
    DELETE FROM inbox WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM inbox WHERE at < now() - $1::float8 * interval '1 day' ORDER BY at LIMIT $2))
    RETURNING 1)
SELECT count(*) FROM gone;

-- name: expire_adjudications
WITH gone AS (
    DELETE FROM adjudications WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM adjudications WHERE at < now() - $1::float8 * interval '1 day' ORDER BY at LIMIT $2))
    RETURNING 1)
SELECT count(*) FROM gone;

-- name: expire_audit_log
-- By number, which rises with time: the table needs no index for this.
WITH gone AS (
    DELETE FROM audit_log WHERE id = ANY(ARRAY(
        SELECT id FROM (SELECT id, at FROM audit_log ORDER BY id LIMIT $2) AS oldest
        WHERE at < now() - $1::float8 * interval '1 day'))
    RETURNING 1)
SELECT count(*) FROM gone;

-- name: expire_leases
WITH gone AS (
    DELETE FROM leases WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM leases WHERE until < now() - $1::float8 * interval '1 day' LIMIT $2))
    RETURNING 1)
SELECT count(*) FROM gone;

-- name: expire_api_usage_metrics
WITH gone AS (
    DELETE FROM api_usage_metrics WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM api_usage_metrics WHERE minute < now() - $1::float8 * interval '1 day' ORDER BY minute LIMIT $2))
    RETURNING 1)
SELECT count(*) FROM gone;

-- name: expire_idempotency_keys
WITH gone AS (
    DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM idempotency_keys
        WHERE created_at < now() - $1::float8 * interval '1 day' ORDER BY created_at LIMIT $2))
    RETURNING 1)
SELECT count(*) FROM gone;

-- name: expire_direct_uploads
WITH gone AS (
    DELETE FROM direct_uploads WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM direct_uploads WHERE created_at < now() - $1::float8 * interval '1 day' ORDER BY created_at LIMIT $2))
    RETURNING 1)
SELECT count(*) FROM gone;
