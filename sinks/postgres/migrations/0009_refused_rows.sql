-- Outbox rows that Kafka refuses for good, set aside by the relay until a person has looked at them (`concord outbox`).
CREATE TABLE outbox_refused (
    id          bigint PRIMARY KEY,
    shard       smallint NOT NULL,
    due_at      timestamptz NOT NULL,
    event_id    uuid NOT NULL,
    topic       text NOT NULL,
    key         bytea,
    value       bytea,
    headers     bytea NOT NULL,
    tenant_id   text,
    job_id      text,
    run         integer,
    error       text NOT NULL,
    refused_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX outbox_refused_of_job ON outbox_refused (tenant_id, job_id);

-- Why rows of a shard are not published, by topic; the empty topic stands for the relay itself. For who asks, not for the relay.
CREATE TABLE relay_trouble (
    shard  smallint NOT NULL,
    topic  text NOT NULL,
    error  text NOT NULL,
    since  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (shard, topic)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON outbox_refused, relay_trouble TO concord_worker;
