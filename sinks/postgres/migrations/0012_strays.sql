-- Requests that providers have and no row knows: found when their lists are read after a backup was restored. A recording that is about
-- to be submitted may be one of them.

CREATE TABLE strays (
    provider     text NOT NULL,
    provider_id  text NOT NULL,
    created      timestamptz,
    -- Of the audio, as the provider tells them: a list of texts, null where it does not say. They may hold signatures.
    urls         jsonb,
    marker       text,
    PRIMARY KEY (provider, provider_id)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON strays TO concord_worker;

-- What a run went on without, until a later run takes it over.
CREATE INDEX provider_requests_abandoned ON provider_requests (claimed_until) WHERE abandoned_at IS NOT NULL;
