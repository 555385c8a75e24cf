-- name: list_conversations
-- Of the first $4 behind ($1, $2), those in a status of $3, or in any if that is empty; and the last of them, from which the next page
-- looks on.
SELECT * FROM (
    SELECT *, row_number() OVER (ORDER BY created_at DESC, job_id) AS n FROM (
        SELECT * FROM conversation_processing
        WHERE created_at <= $1 AND (created_at < $1 OR job_id > $2)
        ORDER BY created_at DESC, job_id LIMIT $4::bigint) AS looked_at) AS numbered
WHERE cardinality($3::text[]) = 0 OR status = ANY($3) OR n = $4
ORDER BY n LIMIT $5;

-- name: failed_conversations
-- By the index of what changed since $1: nothing of a conversation ends without a change.
SELECT * FROM conversation_processing
WHERE updated_at >= $1 AND completed_at >= $1 AND status = 'failed'
  AND completed_at <= $2 AND (completed_at < $2 OR job_id > $3)
ORDER BY completed_at DESC, job_id LIMIT $4;

-- name: conversation_days
-- Each day's conversations by status; without a status those of the day, and without a day all of them: the median of several groups
-- does not follow from theirs.
SELECT day, status, count(*) AS conversations,
       extract(epoch FROM percentile_disc(0.5) WITHIN GROUP (ORDER BY completed_at - created_at)
                          FILTER (WHERE status IN ('completed', 'archived')))::float8 AS median_s
FROM (SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day, status, created_at, completed_at
      FROM conversation_processing WHERE created_at >= $1 AND created_at < $2) AS asked_for
GROUP BY GROUPING SETS ((day, status), (day), ()) ORDER BY day, status;

-- name: issued_urls
SELECT tenant_id, job_id, uri, url, expires_at FROM issued_urls WHERE tenant_id = $1 AND job_id = $2 ORDER BY uri;

-- name: keep_issued_urls
-- Only of files that there are. What comes while a deletion begins, its later passes take.
INSERT INTO issued_urls (tenant_id, job_id, uri, url, expires_at)
SELECT DISTINCT ON (tenant_id, job_id, uri) n.*
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[]) AS n (tenant_id, job_id, uri, url, expires_at)
JOIN files AS f USING (tenant_id, job_id, uri)
ON CONFLICT (tenant_id, job_id, uri) DO UPDATE
SET url = excluded.url, expires_at = excluded.expires_at, issued_at = clock_timestamp();

-- name: owners_of_agent
SELECT tenant_id, settings #>> ARRAY['conversation_agents', $1] AS email_id FROM account_settings
WHERE settings -> 'conversation_agents' ? $1 ORDER BY tenant_id;

-- name: claim_look
-- The agent of some tenant that has waited longest. Of several workers that choose the same one, the first gets it.
WITH chosen AS (
    SELECT s.tenant_id, a.agent_id, a.email_id
    FROM account_settings s
    CROSS JOIN LATERAL jsonb_each_text(CASE jsonb_typeof(s.settings -> 'conversation_agents')
        WHEN 'object' THEN s.settings -> 'conversation_agents' ELSE '{}' END) AS a (agent_id, email_id)
    LEFT JOIN agent_looks l ON (l.tenant_id, l.agent_id) = (s.tenant_id, a.agent_id)
    WHERE l.due_at IS NULL OR l.due_at <= now()
    ORDER BY l.due_at NULLS FIRST, s.tenant_id, a.agent_id LIMIT 1
), claimed AS (
    INSERT INTO agent_looks AS l (tenant_id, agent_id, looked_to, due_at, token)
    SELECT tenant_id, agent_id, now(), clock_timestamp() + $1::float8 * interval '1 second', 1 FROM chosen
    ON CONFLICT (tenant_id, agent_id) DO UPDATE SET due_at = excluded.due_at, token = l.token + 1 WHERE l.due_at <= now()
    RETURNING tenant_id, agent_id, looked_to, token
)
SELECT tenant_id, agent_id, email_id, looked_to, now() AS began_at, token FROM claimed JOIN chosen USING (tenant_id, agent_id);

-- name: end_look
UPDATE agent_looks SET looked_to = $4, begun = $5, error = $7, due_at = clock_timestamp() + $6::float8 * interval '1 second'
WHERE tenant_id = $1 AND agent_id = $2 AND token = $3;
