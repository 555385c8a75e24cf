-- name: reserve_calls
-- Moments for $2 calls, $3 seconds apart, none before the provider's pause is over: seconds until the first of them.
INSERT INTO providers AS p (provider, next_at) VALUES ($1, clock_timestamp() + $2::int * $3::float8 * interval '1 second')
ON CONFLICT (provider) DO UPDATE
SET next_at = greatest(p.next_at, p.paused_until, clock_timestamp()) + $2::int * $3::float8 * interval '1 second'
RETURNING greatest(extract(epoch FROM next_at - clock_timestamp()) - $2::int * $3::float8, 0)::float8;

-- name: space_calls
-- The same for calls that are about to be made, in a second queue, if the first moment is within $4 seconds; else nothing is reserved.
INSERT INTO providers AS p (provider, next_at)
VALUES ($1 || ' line', clock_timestamp() + $2::int * $3::float8 * interval '1 second')
ON CONFLICT (provider) DO UPDATE
SET next_at = greatest(p.next_at, clock_timestamp()) + $2::int * $3::float8 * interval '1 second'
WHERE p.next_at <= clock_timestamp() + $4::float8 * interval '1 second'
RETURNING greatest(extract(epoch FROM next_at - clock_timestamp()) - $2::int * $3::float8, 0)::float8;

-- name: provider_failed
-- The rule of sinks.ports.providers.limits.pause_s: the pause that the provider asked for ($2), and from the $3rd failure in a row on one
-- that doubles up to $4 seconds. A failure within a pause is not counted.
INSERT INTO providers AS p (provider, failures, paused_until)
VALUES ($1, 1, clock_timestamp() + coalesce($2::float8, 0) * interval '1 second')
ON CONFLICT (provider) DO UPDATE
SET failures = p.failures + CASE WHEN p.paused_until > clock_timestamp() THEN 0 ELSE 1 END,
    paused_until = greatest(p.paused_until, clock_timestamp() + interval '1 second' * greatest($2::float8,
        CASE WHEN p.paused_until > clock_timestamp() OR p.failures + 1 < $3 THEN 0
             ELSE least($4::float8, 2 ^ least(p.failures + 1 - $3, 30)) END));

-- name: provider_succeeded
UPDATE providers SET failures = 0 WHERE provider = $1 AND failures > 0;
