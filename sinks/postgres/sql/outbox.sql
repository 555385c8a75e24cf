-- name: insert_outbox
-- Due times count from the database's clock at this statement, after the job's row was locked: for one job they never go back.
INSERT INTO outbox (shard, due_at, event_id, topic, key, value, headers, tenant_id, job_id, run)
SELECT shard, clock_timestamp() + seconds * interval '1 second', event_id, topic, key, value, headers, tenant_id, job_id, run
FROM unnest($1::smallint[], $2::float8[], $3::uuid[], $4::text[], $5::bytea[], $6::bytea[], $7::bytea[], $8::text[],
            $9::text[], $10::int[])
    WITH ORDINALITY AS m (shard, seconds, event_id, topic, key, value, headers, tenant_id, job_id, run, position)
ORDER BY position;

-- name: wake_relays
SELECT pg_notify('outbox_' || shard, '') FROM unnest($1::smallint[]) AS s (shard);

-- name: highest_shard
SELECT coalesce(max(shard), -1) FROM outbox;

-- name: outbox_depth
SELECT shard, count(*) FILTER (WHERE due_at <= now()) AS due, count(*) FILTER (WHERE due_at > now()) AS waiting,
       greatest(extract(epoch FROM now() - min(due_at)), 0)::float8 AS oldest_s
FROM outbox GROUP BY shard;

-- name: overdue
-- Rows that are due for more than $1 seconds, by shard and topic, with what is known about the reason.
SELECT o.shard, o.topic, count(*) AS rows, extract(epoch FROM clock_timestamp() - min(o.due_at))::float8 AS oldest_s,
       max(coalesce(own.error, every.error)) AS error, bool_and(own.error IS NOT NULL) AS apart
FROM outbox o
LEFT JOIN relay_trouble own ON (own.shard, own.topic) = (o.shard, o.topic)
LEFT JOIN relay_trouble every ON (every.shard, every.topic) = (o.shard, '')
WHERE o.due_at < (SELECT clock_timestamp() - $1 * interval '1 second')
GROUP BY o.shard, o.topic ORDER BY 4 DESC;

-- name: idle
SELECT NOT EXISTS (SELECT FROM jobs WHERE status NOT IN ('completed', 'failed'))
   AND NOT EXISTS (SELECT FROM enrichments WHERE state NOT IN ('done', 'failed'))
   AND NOT EXISTS (SELECT FROM outbox WHERE due_at < now() + interval '5 seconds');

-- name: job_idle
SELECT NOT EXISTS (SELECT FROM jobs WHERE (tenant_id, job_id) = ($1, $2) AND status NOT IN ('completed', 'failed'))
   AND NOT EXISTS (SELECT FROM enrichments WHERE (tenant_id, job_id) = ($1, $2) AND state NOT IN ('done', 'failed'))
   AND NOT EXISTS (SELECT FROM outbox WHERE (tenant_id, job_id) = ($1, $2) AND due_at < now() + interval '5 seconds');

-- name: refused
-- The newest rows that were set aside.
SELECT id, topic, key, value, headers, event_id, tenant_id, job_id, run, error, due_at, refused_at FROM outbox_refused
WHERE $2::bigint[] IS NULL OR id = ANY($2) ORDER BY id DESC LIMIT $1;

-- name: count_refused
SELECT topic, count(*) AS rows FROM outbox_refused GROUP BY topic ORDER BY topic;

-- name: drop_refused
-- These rows are settled; the same transaction publishes what replaces them.
DELETE FROM outbox_refused WHERE id = ANY($1::bigint[]) RETURNING id;
