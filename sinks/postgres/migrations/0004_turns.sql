-- Fair and polite use of recognizers that others provide, agreed on by all workers: places for requests under way at once, queues
-- for them, turns for calls, and pauses.

ALTER TABLE provider_requests
    -- 0 is the most urgent; known from the moment at which the request queues.
    ADD COLUMN urgency smallint,
    ADD COLUMN queued_at timestamptz,
    ADD COLUMN admitted_at timestamptz;
CREATE INDEX provider_requests_queue ON provider_requests (provider, urgency, tenant_id, queued_at)
    WHERE state = 'waiting' AND queued_at IS NOT NULL AND admitted_at IS NULL;
CREATE INDEX provider_requests_under_way ON provider_requests (provider, tenant_id) WHERE state IN ('intended', 'submitted');
CREATE INDEX provider_requests_admitted ON provider_requests (provider, tenant_id)
    WHERE state = 'waiting' AND admitted_at IS NOT NULL;

CREATE TABLE providers (
    provider      text PRIMARY KEY,
    -- The first moment that nobody has reserved for a call.
    next_at       timestamptz NOT NULL DEFAULT '-infinity',
    paused_until  timestamptz NOT NULL DEFAULT '-infinity',
    -- Calls that failed since the last one that did not.
    failures      integer NOT NULL DEFAULT 0
);
GRANT SELECT, INSERT, UPDATE, DELETE ON providers TO concord_worker;
