-- Requests to providers of which nobody can tell whether they were accepted: a state of their own, so that they are seen and decided
-- by a person; and whether a run left one behind that a later run has to take over instead of asking, and paying, again.

ALTER TABLE provider_requests
    DROP CONSTRAINT provider_requests_state_check,
    ADD CONSTRAINT provider_requests_state_check
        CHECK (state IN ('waiting', 'intended', 'parked', 'submitted', 'done', 'failed')),
    ADD COLUMN abandoned_at timestamptz;

CREATE INDEX provider_requests_parked ON provider_requests (provider, tenant_id) WHERE state = 'parked';
