-- name: record_usage
{usage.insert}
ON CONFLICT DO NOTHING;

-- name: tokens_used
-- The month's sum is in the index usage_of_tokens.
SELECT (SELECT coalesce(sum(quantity), 0)::float8 FROM usage WHERE (tenant_id, job_id, unit) = ($1, $2, $3)) AS of_job,
       (SELECT coalesce(sum(quantity), 0)::float8 FROM usage WHERE tenant_id = $1 AND unit = 'total_tokens'
          AND at >= date_trunc('month', now(), 'UTC')) AS of_month;
