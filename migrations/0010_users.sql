-- Users: who a cluster's clients may prove to be, by password.
--
-- A password is kept twice, in two forms that cannot be read back: one to check a password that was
-- sent (argon2id), one to check a proof of it (SCRAM-SHA-256, RFC 5802 and 7677).

ALTER TABLE clusters
    -- How often the users were changed. While the lineage is the same, what a reader has is brought up
    -- to date by the users whose `users_version` is higher.
    ADD COLUMN users_version bigint NOT NULL DEFAULT 0,
    -- Another whenever a user went away or a password went out of force, and with each cluster, also
    -- one of an id that was used before: what a reader has is then void.
    ADD COLUMN users_lineage uuid NOT NULL DEFAULT gen_random_uuid(),
    -- Secret. Users that do not exist get the salts that follow from it, so that they look like others.
    ADD COLUMN users_decoy_key uuid NOT NULL DEFAULT gen_random_uuid();

CREATE TABLE users (
    cluster_id text COLLATE "C" NOT NULL REFERENCES clusters ON DELETE CASCADE,
    username text COLLATE "C" NOT NULL
        CONSTRAINT users_username_bytes CHECK (octet_length(username) BETWEEN 1 AND 256),
    -- Another with every password: what was proven with the one before is void.
    secrets_id uuid NOT NULL,
    -- PHC string format.
    password_hash text NOT NULL,
    scram_salt bytea NOT NULL,
    scram_iterations integer NOT NULL,
    scram_stored_key bytea NOT NULL,
    scram_server_key bytea NOT NULL,
    is_superuser boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    -- One more with every change; the record's ETag.
    version bigint NOT NULL,
    -- The cluster's `users_version` of the last change.
    users_version bigint NOT NULL,
    PRIMARY KEY (cluster_id, username)
);

CREATE INDEX users_changed ON users (cluster_id, users_version);
