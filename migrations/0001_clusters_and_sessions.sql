-- Clusters, client sessions, subscriptions, and what the service says of itself.
--
-- Every time is handed in by the program: no statement and no default asks the server's clock.
-- Texts that are compared or ordered do so by bytes (COLLATE "C"), as MQTT compares client ids.

-- When a session expires; null while it is online.
--
-- The same rule as `SessionExpiry::expires_at` in the program: an operator's instant (never before
-- the connection ended), else an operator's interval, else the client's. All steps are immutable,
-- so that a generated column may use it; the last instant is the last that RFC 3339 can write.
CREATE FUNCTION session_expires_at(
    disconnected_at timestamptz,
    client_secs bigint,
    override_secs bigint,
    override_at timestamptz
) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN disconnected_at IS NULL THEN NULL
    WHEN override_at IS NOT NULL THEN greatest(override_at, disconnected_at)
    ELSE least(
        (disconnected_at AT TIME ZONE 'UTC' + make_interval(secs => coalesce(override_secs, client_secs)))
            AT TIME ZONE 'UTC',
        timestamptz '9999-12-31 23:59:59.999+00'
    )
END;

CREATE TABLE clusters (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    labels jsonb NOT NULL,
    status text NOT NULL CHECK (status IN ('active', 'suspended')),
    delete_protection boolean NOT NULL,
    allow_anonymous boolean NOT NULL,
    plan text NOT NULL,
    -- What the cluster sets over its plan; null leaves the plan's value.
    quota_connections bigint,
    quota_subscriptions bigint,
    quota_filters_per_client bigint,
    quota_session_expiry_min_secs bigint,
    quota_session_expiry_max_secs bigint,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version bigint NOT NULL,
    quota_version bigint NOT NULL
);

CREATE TABLE sessions (
    session_id uuid PRIMARY KEY,
    cluster_id text COLLATE "C" NOT NULL REFERENCES clusters ON DELETE CASCADE,
    client_id text COLLATE "C" NOT NULL,

    -- The data plane's part: written by its batches alone.
    epoch bigint NOT NULL,
    protocol text COLLATE "C" NOT NULL CHECK (protocol IN ('3.1', '3.1.1', '5')),
    clean_start boolean NOT NULL,
    username text COLLATE "C",
    peer text NOT NULL,
    listener text NOT NULL,
    transport text NOT NULL,
    keep_alive_secs integer NOT NULL,
    receive_maximum integer NOT NULL,
    packet_bytes_max bigint,
    expiry_client_secs bigint NOT NULL,
    expiry_bounded boolean NOT NULL,
    has_will boolean NOT NULL,
    created_at timestamptz NOT NULL,
    connected_at timestamptz NOT NULL,
    disconnected_at timestamptz,
    disconnect_reason text,
    disconnect_by text,

    -- The operator's part: written by the control plane alone. At most one of the two is set.
    expiry_override_secs bigint,
    expiry_override_at timestamptz,

    -- Nobody writes it, so nobody can write a stale one.
    expires_at timestamptz GENERATED ALWAYS AS (
        session_expires_at(disconnected_at, expiry_client_secs, expiry_override_secs, expiry_override_at)
    ) STORED,
    -- One more with every write to the row; the record's ETag. A subscription is not a write to it:
    -- a device that subscribes does not make an operator's change fail.
    version bigint NOT NULL,

    CONSTRAINT sessions_client UNIQUE (cluster_id, client_id),
    CONSTRAINT sessions_one_override CHECK (num_nonnulls(expiry_override_secs, expiry_override_at) <= 1),
    CONSTRAINT sessions_disconnect CHECK ((disconnect_reason IS NULL) = (disconnect_by IS NULL))
)
-- Room in each page for the next version of a row: what changes no indexed column (a new epoch, a
-- version) then touches no index.
WITH (fillfactor = 85);

-- Listing walks (cluster_id, client_id), or one of these when it filters. State flips with every
-- connect and then every index of the row is written: a filter earns one only if it picks few rows
-- of many (a protocol does not). Each state has a partial index, and a row lies in one of the two.
CREATE INDEX sessions_online ON sessions (cluster_id, client_id) WHERE disconnected_at IS NULL;
CREATE INDEX sessions_offline ON sessions (cluster_id, client_id) WHERE disconnected_at IS NOT NULL;
-- A user name may have 65,535 bytes and an index entry 2,704: the index holds its beginning.
CREATE INDEX sessions_username ON sessions (cluster_id, left(username, 128), client_id)
    WHERE username IS NOT NULL;

CREATE TABLE subscriptions (
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    -- `$share/{group}/…` included. The bound keeps the key within an index entry.
    filter text COLLATE "C" NOT NULL CONSTRAINT subscriptions_filter_bytes CHECK (octet_length(filter) <= 2048),
    qos smallint NOT NULL CHECK (qos BETWEEN 0 AND 2),
    no_local boolean NOT NULL,
    retain_as_published boolean NOT NULL,
    retain_handling smallint NOT NULL CHECK (retain_handling BETWEEN 0 AND 2),
    identifier bigint,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (session_id, filter)
);

-- One row: how often what the data plane should enforce has changed. Its row lock makes the
-- revisions grow in the order of the commits.
CREATE TABLE desired_revision (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    revision bigint NOT NULL
);
INSERT INTO desired_revision (revision) VALUES (0);

-- One row: when the serving process last said that it lives.
CREATE TABLE service (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    heartbeat_at timestamptz
);
INSERT INTO service (heartbeat_at) VALUES (NULL);
