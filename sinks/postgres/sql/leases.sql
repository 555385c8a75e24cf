-- name: lease
-- Take a lease that is free or has expired, or renew it as its holder.
INSERT INTO leases (key, holder, until) VALUES ($1, $2, clock_timestamp() + $3 * interval '1 second')
ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, until = excluded.until
WHERE leases.holder = excluded.holder OR leases.until < clock_timestamp()
RETURNING key;

-- name: release
DELETE FROM leases WHERE key = $1 AND holder = $2;

-- name: register_worker
-- The process $2 has the role $1 for $3 seconds; how many have it.
WITH gone AS (
    DELETE FROM leases WHERE starts_with(key, $1 || '/') AND until < clock_timestamp() - interval '1 minute'
), mine AS (
    INSERT INTO leases (key, holder, until) VALUES ($1 || '/' || $2, $2, clock_timestamp() + $3 * interval '1 second')
    ON CONFLICT (key) DO UPDATE SET until = excluded.until RETURNING key
)
SELECT 1 + count(*) FROM leases
WHERE starts_with(key, $1 || '/') AND until > clock_timestamp() AND key <> (SELECT key FROM mine);
