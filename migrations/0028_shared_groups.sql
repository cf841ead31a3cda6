-- How shared groups choose who gets a message, where an operator has said so. Kept whether or not a session is a
-- member at the moment: a group without one has nothing else.

CREATE TABLE shared_group_settings (
    cluster_id text COLLATE "C" NOT NULL REFERENCES clusters ON DELETE CASCADE,
    -- The whole filter, `$share/{name}/…`; bounded as that of a subscription is.
    filter text COLLATE "C" NOT NULL CHECK (octet_length(filter) <= 2048),
    strategy text NOT NULL CHECK (strategy IN ('random', 'hash_topic', 'hash_client_id')),
    updated_at timestamptz NOT NULL,
    -- The revision of the desired state that it came with: never that of another setting, so it is its ETag.
    version bigint NOT NULL,
    PRIMARY KEY (cluster_id, filter)
);
