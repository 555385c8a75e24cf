-- name: announce_events
-- One delivery of each event to each endpoint of its tenant that asks for it, in the order of the events; paused ones are not told
-- of pauses. The endpoints are locked against deletion, which waits: a step never fails for an endpoint that goes away.
INSERT INTO webhook_deliveries (tenant_id, webhook_id, event_id, type, job_id, body)
SELECT w.tenant_id, w.webhook_id, e.event_id, e.type, e.job_id, e.body
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
    WITH ORDINALITY AS e (tenant_id, event_id, type, job_id, body, position)
JOIN webhooks w ON w.tenant_id = e.tenant_id AND w.active AND (w.events ? e.type OR w.events ? '*')
    AND NOT (e.type = 'webhook.paused' AND w.paused_at IS NOT NULL)
ORDER BY e.position FOR KEY SHARE OF w
ON CONFLICT (webhook_id, event_id) DO NOTHING;

-- name: delivery_heads
-- What is due and first of its job at its endpoint, of each endpoint as many as it may be sent at once ($3, less what it is sent by
-- this worker: $1, $2; one while it fails). Tenants take turns. Endpoints that wait for something are found by jumps over the index;
-- what is first is asked row by row: for 36,000 due rows at 100 endpoints 10 ms, where an anti-join took 900.
WITH RECURSIVE waiting (webhook_id) AS (
    (SELECT webhook_id FROM webhook_deliveries WHERE state = 'pending' ORDER BY webhook_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.webhook_id FROM webhook_deliveries d WHERE d.state = 'pending' AND d.webhook_id > w.webhook_id
            ORDER BY d.webhook_id LIMIT 1)
    FROM waiting w WHERE w.webhook_id IS NOT NULL
), heads AS (
    SELECT w.tenant_id, h.id, h.due_at FROM waiting JOIN webhooks w USING (webhook_id)
    LEFT JOIN unnest($1::text[], $2::int[]) AS busy (webhook_id, sent) USING (webhook_id)
    CROSS JOIN LATERAL (
        SELECT d.id, d.due_at FROM webhook_deliveries d
        WHERE d.webhook_id = w.webhook_id AND d.state = 'pending' AND d.due_at <= now()
          AND d.id = coalesce((SELECT e.id FROM webhook_deliveries e
                               WHERE e.webhook_id = d.webhook_id AND e.job_id = d.job_id AND e.state = 'pending'
                               ORDER BY e.id LIMIT 1), d.id)
        ORDER BY d.due_at, d.id
        LIMIT greatest(0, CASE WHEN w.failing_since IS NULL THEN $3::int ELSE 1 END - coalesce(busy.sent, 0))) h
    WHERE w.active AND w.paused_at IS NULL
)
SELECT tenant_id, id FROM heads ORDER BY row_number() OVER (PARTITION BY tenant_id ORDER BY due_at, id), due_at, id LIMIT 1000;

-- name: claim_deliveries
-- For $2 seconds they are this worker's, if no other has been quicker.
WITH mine AS (
    SELECT id FROM webhook_deliveries WHERE id = ANY($1::bigint[]) AND state = 'pending' AND due_at <= clock_timestamp()
    FOR UPDATE SKIP LOCKED
)
UPDATE webhook_deliveries d SET token = d.token + 1, due_at = clock_timestamp() + $2 * interval '1 second'
FROM webhooks w WHERE d.id IN (SELECT id FROM mine) AND w.webhook_id = d.webhook_id
RETURNING {webhook_deliveries.columns as d}, w.url, (
    SELECT array_agg(s.secret ORDER BY s.created_at DESC) FROM webhook_secrets s
    WHERE s.webhook_id = d.webhook_id AND (s.expires_at IS NULL OR s.expires_at > clock_timestamp())) AS secrets;

-- name: lock_delivery
-- The endpoint of a delivery that is still this worker's. The endpoint is locked first, as its deletion locks it.
SELECT {webhooks.columns as w}, clock_timestamp() AS db_now FROM webhooks w
WHERE w.webhook_id = $1 AND EXISTS (
    SELECT FROM webhook_deliveries d WHERE d.id = $2 AND d.token = $3 AND d.state = 'pending')
FOR NO KEY UPDATE OF w;

-- name: endpoint_answered
UPDATE webhooks SET failing_since = NULL WHERE webhook_id = $1 AND failing_since IS NOT NULL;

-- name: endpoint_failed
UPDATE webhooks SET failing_since = coalesce(failing_since, clock_timestamp()),
    paused_at = CASE WHEN $2::text IS NULL THEN paused_at ELSE coalesce(paused_at, clock_timestamp()) END,
    paused_reason = coalesce(paused_reason, $2)
WHERE webhook_id = $1;

-- name: pause_webhook
UPDATE webhooks SET paused_at = clock_timestamp(), paused_reason = $2 WHERE webhook_id = $1;

-- name: release_delivery
UPDATE webhook_deliveries SET due_at = clock_timestamp() WHERE id = $1 AND token = $2;

-- name: stored_secrets
SELECT tenant_id, webhook_id, secret FROM webhook_secrets WHERE expires_at IS NULL OR expires_at > clock_timestamp()
ORDER BY tenant_id, webhook_id, created_at DESC;

-- name: replace_secret
UPDATE webhook_secrets SET secret = $4 WHERE tenant_id = $1 AND webhook_id = $2 AND secret = $3 RETURNING webhook_id;

-- name: end_unsigned_pause
UPDATE webhooks SET paused_at = NULL, paused_reason = NULL
WHERE tenant_id = $1 AND webhook_id = $2 AND paused_at IS NOT NULL AND starts_with(paused_reason, $3) RETURNING webhook_id;

-- name: record_delivery
UPDATE webhook_deliveries SET state = $3, failures = failures + ($3 <> 'delivered')::int,
    due_at = clock_timestamp() + $4 * interval '1 second',
    delivered_at = CASE WHEN $3 = 'delivered' THEN clock_timestamp() END
WHERE id = $1 AND token = $2 AND state = 'pending' RETURNING id;

-- name: record_attempt
INSERT INTO webhook_attempts (tenant_id, delivery_id, status, duration_ms, answer, error) VALUES ($1, $2, $3, $4, $5, $6);

-- name: insert_webhook
{webhooks.insert_one} RETURNING {webhooks.columns};

-- name: lock_webhooks
-- Until the transaction ends, nobody else makes an endpoint of this tenant.
SELECT pg_advisory_xact_lock(hashtext('concord webhooks ' || $1));

-- name: insert_webhook_secret
INSERT INTO webhook_secrets (tenant_id, webhook_id, secret) VALUES ($1, $2, $3);

-- name: expire_webhook_secrets
-- Those that were valid until now are valid for $3 more seconds, and the newest of them only.
UPDATE webhook_secrets SET expires_at = clock_timestamp() + CASE WHEN expires_at IS NULL THEN $3 ELSE 0 END * interval '1 second'
WHERE tenant_id = $1 AND webhook_id = $2 AND (expires_at IS NULL OR expires_at > clock_timestamp());

-- name: read_webhooks
SELECT {webhooks.columns} FROM webhooks WHERE tenant_id = $1 AND ($2::text IS NULL OR webhook_id = $2) ORDER BY created_at, webhook_id;

-- name: lock_webhook
SELECT {webhooks.columns} FROM webhooks WHERE tenant_id = $1 AND webhook_id = $2 FOR NO KEY UPDATE;

-- name: update_webhook
-- Switched on again, it starts afresh: what has waited is due at once.
UPDATE webhooks SET url = $3, events = $4, description = $5, active = $6,
    failing_since = CASE WHEN $7 THEN NULL ELSE failing_since END, paused_at = CASE WHEN $7 THEN NULL ELSE paused_at END,
    paused_reason = CASE WHEN $7 THEN NULL ELSE paused_reason END
WHERE tenant_id = $1 AND webhook_id = $2 RETURNING {webhooks.columns};

-- name: hurry_deliveries
-- Not those that a worker attempts at present: their tokens stay theirs.
UPDATE webhook_deliveries SET due_at = least(due_at, clock_timestamp() + interval '60 seconds')
WHERE tenant_id = $1 AND webhook_id = $2 AND state = 'pending';

-- name: delete_webhook
DELETE FROM webhooks WHERE tenant_id = $1 AND webhook_id = $2 RETURNING {webhooks.columns};

-- name: insert_delivery
INSERT INTO webhook_deliveries (tenant_id, webhook_id, event_id, type, body) VALUES ($1, $2, $3, $4, $5)
RETURNING {webhook_deliveries.columns};

-- name: read_deliveries
SELECT {webhook_deliveries.columns} FROM webhook_deliveries
WHERE tenant_id = $1 AND webhook_id = $2 AND ($3::text IS NULL OR state = $3) AND ($4::bigint IS NULL OR id < $4)
ORDER BY id DESC LIMIT $5;

-- name: read_delivery
SELECT {webhook_deliveries.columns} FROM webhook_deliveries WHERE tenant_id = $1 AND webhook_id = $2 AND id = $3;

-- name: read_attempts
SELECT at, status, duration_ms, answer, error FROM webhook_attempts WHERE tenant_id = $1 AND delivery_id = $2 ORDER BY at DESC LIMIT $3;

-- name: replay_deliveries
-- One that has ended; without an id, all that failed.
UPDATE webhook_deliveries SET state = 'pending', failures = 0, due_at = clock_timestamp(), delivered_at = NULL
WHERE tenant_id = $1 AND webhook_id = $2 AND CASE WHEN $3::bigint IS NULL THEN state = 'failed' ELSE id = $3 AND state <> 'pending' END
RETURNING id;
