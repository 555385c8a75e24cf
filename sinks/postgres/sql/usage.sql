-- name: record_usage
{usage.insert}
ON CONFLICT DO NOTHING;
