-- name: add_schedule
-- Of those that are over, the newest stay, so that the new one has as many beside it as there may be.
WITH forgotten AS (
    DELETE FROM schedules WHERE schedule_id IN (
        SELECT schedule_id FROM schedules WHERE tenant_id = $1 AND turn_at IS NULL
        ORDER BY created_at DESC, schedule_id OFFSET $11 - 1))
INSERT INTO schedules (tenant_id, schedule_id, name, cron, timezone, enrichment, jobs, mail_to, created_by, due_at, turn_at)
SELECT $1::text, $2::uuid, $3::text, $4::text, $5::text, $6::text, $7::jsonb, $8::jsonb, $9::text, $10::timestamptz, $10::timestamptz
WHERE (SELECT count(*) FROM schedules WHERE tenant_id = $1 AND turn_at IS NOT NULL) < $11
ON CONFLICT (schedule_id) DO NOTHING
RETURNING {schedules.columns};

-- name: schedules
SELECT {schedules.columns} FROM schedules WHERE tenant_id = $1 ORDER BY created_at, schedule_id;

-- name: schedule
SELECT {schedules.columns} FROM schedules WHERE tenant_id = $1 AND schedule_id = $2;

-- name: delete_schedule
WITH mailed AS (DELETE FROM mails WHERE tenant_id = $1 AND job_id = 'schedule-' || $2::uuid)
DELETE FROM schedules WHERE tenant_id = $1 AND schedule_id = $2 RETURNING schedule_id;

-- name: claim_schedule
-- The one that has waited longest for its turn. Until the claim lapses it is nobody else's.
UPDATE schedules SET token = token + 1, turn_at = clock_timestamp() + $1::float8 * interval '1 second'
WHERE schedule_id = (SELECT schedule_id FROM schedules WHERE turn_at <= now()
                     ORDER BY turn_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING {schedules.columns};

-- name: continue_tick
UPDATE schedules SET after_created_at = $3, after_job = $4, asked = asked + $5,
                     turn_at = clock_timestamp() + $6::float8 * interval '1 second'
WHERE schedule_id = $1 AND token = $2 RETURNING schedule_id;

-- name: end_tick
UPDATE schedules SET last_tick_at = due_at, last_asked = asked + $3, last_error = $4, asked = 0,
                     after_created_at = NULL, after_job = NULL, due_at = coalesce($5, due_at), turn_at = $5
WHERE schedule_id = $1 AND token = $2 RETURNING schedule_id;
