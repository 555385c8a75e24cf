-- name: lock_shard
-- Held until the connection ends, so that a dead owner's is free at once.
SELECT pg_try_advisory_lock(hashtext('concord relay'), $1::int);

-- name: newest_batch
SELECT batch, ids FROM relay_batches WHERE shard = $1;

-- name: claim_batch
-- Write down that the next due rows are batch $2, and read them: by due time, then id, which for one job is the order of its
-- changes. (By "id greater than the last" rows would be lost, because ids do not become visible in order.)
WITH due AS MATERIALIZED (
    SELECT id, due_at, topic, key, value, headers FROM outbox
    WHERE shard = $1 AND due_at <= clock_timestamp() ORDER BY due_at, id LIMIT $3
), claimed AS (
    INSERT INTO relay_batches (shard, batch, ids) SELECT $1, $2, array_agg(id) FROM due HAVING count(*) > 0
    ON CONFLICT (shard) DO UPDATE SET batch = excluded.batch, ids = excluded.ids
)
SELECT id, topic, key, value, headers FROM due ORDER BY due_at, id;

-- name: batch_rows
-- A claimed batch again, after a crash.
SELECT id, topic, key, value, headers FROM outbox WHERE shard = $1 AND id = ANY($2::bigint[]) ORDER BY due_at, id;

-- name: drop_rows
-- These were published.
DELETE FROM outbox WHERE shard = $1 AND id = ANY($2::bigint[]);

-- name: next_due
-- Seconds until the next row is due; null when nothing waits.
SELECT extract(epoch FROM min(due_at) - clock_timestamp())::float8 FROM outbox WHERE shard = $1;

-- name: highest_shard
SELECT coalesce(max(shard), -1) FROM outbox;

-- name: outbox_depth
SELECT shard, count(*) FILTER (WHERE due_at <= now()) AS due, count(*) FILTER (WHERE due_at > now()) AS waiting,
       greatest(extract(epoch FROM now() - min(due_at)), 0)::float8 AS oldest_s
FROM outbox GROUP BY shard;
