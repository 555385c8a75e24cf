-- name: drop_failures
-- Remove what this worker reports no longer, and reports of workers that are gone.
DELETE FROM app_failures
WHERE (worker = $1 AND NOT app = ANY($2::text[])) OR seen_at < now() - interval '1 day';

-- name: keep_failures
INSERT INTO app_failures (worker, app, failures, error, places)
SELECT $1, app, failures, error, coalesce(string_to_array(nullif(places, ''), ' '), '{}')
FROM unnest($2::text[], $3::int[], $4::text[], $5::text[]) AS t (app, failures, error, places)
ON CONFLICT (worker, app) DO UPDATE
SET failures = excluded.failures, error = excluded.error, places = excluded.places, seen_at = now();

-- name: failures
SELECT worker, app, failures, error, places, extract(epoch FROM now() - seen_at)::float8 AS seen_s
FROM app_failures ORDER BY worker, app;

-- name: ask_skip
INSERT INTO skips (topic, partition, "offset", timestamp_ms, unread, reason)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (topic, partition, "offset") DO UPDATE
SET timestamp_ms = excluded.timestamp_ms, unread = excluded.unread, reason = excluded.reason, asked_at = now(),
    done = '{}';

-- name: skips
-- For as long as Kafka may deliver the records again.
SELECT topic, partition, "offset", timestamp_ms, unread, reason FROM skips WHERE asked_at > now() - interval '14 days';

-- name: skip_done
UPDATE skips SET done = array_append(done, $4)
WHERE topic = $1 AND partition = $2 AND "offset" = $3 AND NOT $4 = ANY(done);

-- name: skip_done_by
SELECT done FROM skips WHERE topic = $1 AND partition = $2 AND "offset" = $3;
