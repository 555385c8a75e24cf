-- What workers and operators tell each other when a record cannot be got past.

-- Parts of workers that fail again and again: written by the worker, read by `concord doctor`.
CREATE TABLE app_failures (
    worker    text NOT NULL,
    app       text NOT NULL,
    failures  integer NOT NULL,
    error     text NOT NULL,
    -- Where it was: topic/partition/offset.
    places    text[] NOT NULL,
    seen_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (worker, app)
);

-- Records that are to be passed over: written by `concord skip`, obeyed by every worker that meets them.
CREATE TABLE skips (
    topic         text NOT NULL,
    partition     integer NOT NULL,
    "offset"      bigint NOT NULL,
    -- Of the record that was there when it was asked for; NULL if it could not be read. A topic that is made again has
    -- other records at the same places.
    timestamp_ms  bigint,
    -- Not even unpacked: the bytes of its whole batch go into the dead letters.
    unread        boolean NOT NULL,
    reason        text NOT NULL,
    asked_at      timestamptz NOT NULL DEFAULT now(),
    -- The stages that have passed it over.
    done          text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (topic, partition, "offset")
);

GRANT SELECT, INSERT, UPDATE, DELETE ON app_failures, skips TO concord_worker;
