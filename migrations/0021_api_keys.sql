-- API keys: what programs send in place of a token. Of the secret only its SHA-256 is kept.
CREATE TABLE api_keys (
    -- The public part, which names the key in the log and in the audit log.
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    secret_hash bytea NOT NULL,
    role text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    -- What of the role the key has; null for all of it.
    scopes jsonb,
    -- The one cluster that exists for the key; null for all of them.
    cluster_id text COLLATE "C" REFERENCES clusters ON DELETE CASCADE,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    -- Coarse: to the minute.
    last_used_at timestamptz
);
CREATE INDEX api_keys_cluster ON api_keys (cluster_id, id);
