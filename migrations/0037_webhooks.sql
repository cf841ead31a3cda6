-- Where the events of a cluster's sessions are delivered to.

CREATE TABLE webhooks (
    cluster_id text COLLATE "C" NOT NULL REFERENCES clusters ON DELETE CASCADE,
    id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    url text NOT NULL,
    -- Which kinds of events; null for all.
    kinds jsonb,
    enabled boolean NOT NULL,
    -- Signs what is delivered, so it must be readable.
    secret bytea NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    -- Counts what operators change, not what is delivered.
    version bigint NOT NULL,

    -- The last event that was delivered, passed over or given up.
    position bigint NOT NULL,
    -- How often the event behind it was tried.
    attempts bigint NOT NULL DEFAULT 0,
    -- How often in a row the receiver could not be reached.
    failures bigint NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    last_error text,
    last_delivered_at timestamptz,
    -- Events that were no longer kept when their turn came.
    missed bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (cluster_id, id)
);

-- Events that were given up, as they were to be sent.
CREATE TABLE webhook_dead_letters (
    cluster_id text COLLATE "C" NOT NULL,
    webhook_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    body text NOT NULL,
    attempts bigint NOT NULL,
    error text NOT NULL,
    died_at timestamptz NOT NULL,
    -- Whether somebody wants it tried again.
    retry boolean NOT NULL DEFAULT false,
    PRIMARY KEY (cluster_id, webhook_id, seq),
    FOREIGN KEY (cluster_id, webhook_id) REFERENCES webhooks ON DELETE CASCADE
);
CREATE INDEX webhook_dead_letters_retry ON webhook_dead_letters (cluster_id, webhook_id, seq) WHERE retry;
