-- name: insert_version
{transcript_versions.insert_one};

-- name: update_transcript
-- The row of the newest version takes the place of the one before.
{transcripts.insert_one}
{transcripts.update};

-- name: insert_review_items
-- A run is completed once; a restored database may see it again, with the same spans.
{review_items.insert}
ON CONFLICT (tenant_id, id) DO NOTHING;

-- name: drop_earlier_items
-- A later run is completed: its transcript is the one that is corrected from now on.
DELETE FROM review_items i USING unnest($1::text[], $2::text[], $3::int[]) AS w (tenant_id, job_id, run)
WHERE (i.tenant_id, i.job_id) = (w.tenant_id, w.job_id) AND i.run < w.run AND i.state = 'open';

-- name: settle_review_items
-- An edit has decided words $4: what was open about them is done.
UPDATE review_items SET state = 'done', reviewer = $5, choice = NULL, text = NULL, decided_at = clock_timestamp()
WHERE (tenant_id, job_id, run) = ($1, $2, $3) AND state <> 'done' AND slots ?| $4::text[];

-- name: decide_review_item
UPDATE review_items SET state = 'done', reviewer = $3, choice = $4, text = $5, decided_at = clock_timestamp()
WHERE tenant_id = $1 AND id = $2;

-- name: upsert_review_choices
{review_choices.insert}
{review_choices.update};

-- name: skip_review_item
-- What is done stays done.
UPDATE review_items SET state = 'skipped', reviewer = $3, decided_at = clock_timestamp()
WHERE tenant_id = $1 AND id = $2 AND state <> 'done' RETURNING {review_items.columns};

-- name: assign_review_item
UPDATE review_items SET assignee = $3 WHERE tenant_id = $1 AND id = $2 RETURNING {review_items.columns};

-- name: read_versions
SELECT {listed_versions.columns} FROM transcript_versions
WHERE tenant_id = $1 AND job_id = $2 AND run = $3 ORDER BY version DESC LIMIT $4;

-- name: read_version
SELECT {transcript_versions.columns} FROM transcript_versions
WHERE tenant_id = $1 AND job_id = $2 AND run = $3 AND version = $4;

-- name: read_review_items
-- A page of a tenant's items in one state behind ($3, $4), the most doubtful first.
SELECT {review_items.columns} FROM review_items
WHERE tenant_id = $1 AND state = $2 AND doubt <= coalesce($3::float8, 'Infinity')
  AND (doubt < coalesce($3::float8, 'Infinity') OR id > $4)
  AND ($6::text IS NULL OR assignee = $6) AND ($7::text IS NULL OR job_id = $7)
ORDER BY doubt DESC, id LIMIT $5;

-- name: read_review_item
SELECT {review_items.columns} FROM review_items WHERE tenant_id = $1 AND id = $2;

-- name: count_review_items
SELECT state, count(*) AS items, count(*) FILTER (WHERE state = 'open' AND assignee IS NOT NULL) AS assigned
FROM review_items WHERE tenant_id = $1 GROUP BY state;

-- name: count_reviewers
-- What each reviewer has decided, and skipped last.
SELECT reviewer, sum(done)::int AS done, sum(skipped)::int AS skipped FROM (
    SELECT reviewer, count(*) AS done, 0 AS skipped FROM review_choices WHERE tenant_id = $1 GROUP BY reviewer
    UNION ALL
    SELECT reviewer, 0, count(*) FROM review_items WHERE tenant_id = $1 AND state = 'skipped' GROUP BY reviewer
) AS counted GROUP BY reviewer ORDER BY reviewer;

-- name: count_agreement
-- Of the items that several reviewers decided, how many all of them decided alike.
SELECT count(*) AS items, count(*) FILTER (WHERE alike) AS alike FROM (
    SELECT count(DISTINCT (coalesce(choice, -1), coalesce(text, ''))) = 1 AS alike
    FROM review_choices WHERE tenant_id = $1 GROUP BY item HAVING count(*) > 1) AS decided;
