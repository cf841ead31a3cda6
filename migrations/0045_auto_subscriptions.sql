-- Automatic subscriptions: what each cluster has its clients subscribe to when they connect.

ALTER TABLE clusters
    -- Another with every change to the rules, and with each cluster, also one of an id that was used before: what
    -- a reader has of them is then void.
    ADD COLUMN auto_subscriptions_revision uuid NOT NULL DEFAULT gen_random_uuid();

CREATE TABLE auto_subscriptions (
    cluster_id text COLLATE "C" NOT NULL REFERENCES clusters ON DELETE CASCADE,
    -- Grows with the time at which rules are made: the newest holds.
    auto_subscription_id uuid NOT NULL,
    description text,
    -- Whom it is for, and what they subscribe to, as the API takes it.
    spec jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    -- One more with every change; the record's ETag.
    version bigint NOT NULL,
    PRIMARY KEY (cluster_id, auto_subscription_id)
);

ALTER TABLE subscriptions
    DROP CONSTRAINT subscriptions_origin_check,
    ADD CONSTRAINT subscriptions_origin_check CHECK (origin IN ('client', 'operator', 'automatic')) NOT VALID;
