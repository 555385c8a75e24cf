-- The URL under which a recognizer is told of its audio, kept before it is told; and the way from a recognizer's callback to the
-- event that looks at its request next.

ALTER TABLE provider_requests ADD COLUMN audio_url text, ADD COLUMN audio_at timestamptz;

CREATE INDEX provider_requests_submitted ON provider_requests (provider, provider_id) WHERE state = 'submitted';
CREATE INDEX outbox_asked ON outbox (key) WHERE topic LIKE 'asr.requests.%';
