-- What a cluster sets of its clients' sessions, and limits of its retained messages.

ALTER TABLE clusters
    -- Which member of a shared group gets a message.
    ADD COLUMN shared_strategy text NOT NULL DEFAULT 'random'
        CHECK (shared_strategy IN ('random', 'hash_topic', 'hash_client_id')),
    -- The longest keep-alive; null leaves each client its own.
    ADD COLUMN server_keep_alive_secs integer CHECK (server_keep_alive_secs BETWEEN 1 AND 65535),
    -- What the cluster sets over its plan; null leaves the plan's value.
    ADD COLUMN quota_retained_messages bigint,
    ADD COLUMN quota_retained_bytes bigint;
