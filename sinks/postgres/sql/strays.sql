-- name: drop_known_strays
DELETE FROM strays s USING provider_requests p WHERE p.provider = s.provider AND p.provider_id = s.provider_id AND s.provider = $1;

-- name: strays
SELECT {strays.columns} FROM strays WHERE provider = $1 ORDER BY provider_id;

-- name: keep_strays
-- Those that no row knows. Lists of URLs come as JSON: unnest would take arrays of arrays apart.
{strays.insert} AS w ({strays.columns})
WHERE NOT EXISTS (SELECT FROM provider_requests p WHERE p.provider = w.provider AND p.provider_id = w.provider_id)
ON CONFLICT (provider, provider_id) DO UPDATE SET created = excluded.created
RETURNING {strays.columns};

-- name: forget_stray
DELETE FROM strays WHERE provider = $1 AND provider_id = $2 RETURNING provider_id;
