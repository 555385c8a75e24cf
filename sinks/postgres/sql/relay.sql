-- name: lock_shard
-- Held until the connection ends, so that a dead owner's is free at once.
SELECT pg_try_advisory_lock(hashtext('concord relay'), $1::int);

-- name: newest_batch
SELECT batch, ids FROM relay_batches WHERE shard = $1;

-- name: claim_batch
-- Write down that the next due rows are batch $2, and read them: by due time, then id, which for one job is the order of its
-- changes. (By "id greater than the last" rows would be lost, because ids do not become visible in order.) At most $3 rows, of
-- which the last may exceed $4 bytes; none of the topics, rows and keys that are kept apart. The scalar subquery makes the time
-- a bound of the index: compared with the volatile function itself, every row that waits would be read.
WITH first AS (
    SELECT id, due_at, topic, key, value, headers, event_id, tenant_id, job_id, run,
           coalesce(octet_length(value), 0) + octet_length(headers) AS bytes
    FROM outbox
    WHERE shard = $1 AND due_at <= (SELECT clock_timestamp())
      AND topic <> ALL($5::text[]) AND id <> ALL($6::bigint[]) AND (key IS NULL OR key <> ALL($7::bytea[]))
    ORDER BY due_at, id LIMIT $3
), due AS MATERIALIZED (
    SELECT id, due_at, topic, key, value, headers, event_id, tenant_id, job_id, run
    FROM (SELECT *, sum(bytes) OVER (ORDER BY due_at, id) - bytes AS before FROM first) f
    WHERE before < $4
), claimed AS (
    INSERT INTO relay_batches (shard, batch, ids) SELECT $1, $2, array_agg(id) FROM due HAVING count(*) > 0
    ON CONFLICT (shard) DO UPDATE SET batch = excluded.batch, ids = excluded.ids
)
SELECT id, topic, key, value, headers, event_id, tenant_id, job_id, run,
       (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms FROM due ORDER BY due_at, id;

-- name: claim_apart
-- The same for rows by id, or for the first $5 rows of a topic, that are published by themselves; of the latter no more bytes than
-- $6, but the first. Of 100,000 rows that are due, two are found by their ids in 0.3 ms; with "or topic = $4" in 22 ms.
WITH first AS (
    SELECT id, due_at, topic, key, value, headers, event_id, tenant_id, job_id, run,
           coalesce(octet_length(value), 0) + octet_length(headers) AS bytes
    FROM outbox
    WHERE shard = $1 AND due_at <= (SELECT clock_timestamp()) AND id = ANY($3::bigint[] || array(
        SELECT id FROM outbox
        WHERE $4 <> '' AND shard = $1 AND topic = $4 AND due_at <= (SELECT clock_timestamp())
        ORDER BY due_at, id LIMIT $5
    ))
    ORDER BY due_at, id LIMIT $5
), due AS MATERIALIZED (
    SELECT id, due_at, topic, key, value, headers, event_id, tenant_id, job_id, run
    FROM (SELECT *, sum(bytes) OVER (ORDER BY due_at, id) - bytes AS before FROM first) f
    WHERE before < $6
), claimed AS (
    INSERT INTO relay_batches (shard, batch, ids) SELECT $1, $2, array_agg(id) FROM due HAVING count(*) > 0
    ON CONFLICT (shard) DO UPDATE SET batch = excluded.batch, ids = excluded.ids
)
SELECT id, topic, key, value, headers, event_id, tenant_id, job_id, run,
       (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms FROM due ORDER BY due_at, id;

-- name: batch_rows
-- A claimed batch again, after a crash.
SELECT id, topic, key, value, headers, event_id, tenant_id, job_id, run,
       (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms FROM outbox
WHERE shard = $1 AND id = ANY($2::bigint[]) ORDER BY due_at, id;

-- name: drop_rows
-- These were published.
DELETE FROM outbox WHERE shard = $1 AND id = ANY($2::bigint[]);

-- name: next_due
-- Seconds until the next row is due; null when nothing waits but what is kept apart.
SELECT extract(epoch FROM due_at - clock_timestamp())::float8 FROM outbox
WHERE shard = $1 AND topic <> ALL($2::text[]) AND id <> ALL($3::bigint[]) AND (key IS NULL OR key <> ALL($4::bytea[]))
ORDER BY due_at, id LIMIT 1;

-- name: set_aside
-- Kafka refuses this row for good: it is kept for a person to look at.
WITH refused AS (DELETE FROM outbox WHERE shard = $1 AND id = $2 RETURNING *)
INSERT INTO outbox_refused (id, shard, due_at, event_id, topic, key, value, headers, tenant_id, job_id, run, error)
SELECT id, shard, due_at, event_id, topic, key, value, headers, tenant_id, job_id, run, $3 FROM refused;

-- name: tell_trouble
-- What keeps rows from being published, by topic; the empty topic is the relay itself.
INSERT INTO relay_trouble (shard, topic, error) SELECT $1, * FROM unnest($2::text[], $3::text[])
ON CONFLICT (shard, topic) DO UPDATE SET error = excluded.error;

-- name: forget_trouble
DELETE FROM relay_trouble WHERE shard = $1 AND topic <> ALL($2::text[]);
