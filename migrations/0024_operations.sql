-- Work that outlasts a request and a restart: purges of sessions.

CREATE TABLE operations (
    id uuid PRIMARY KEY,
    -- No reference: what was done is told longer than the cluster exists.
    cluster_id text COLLATE "C" NOT NULL,
    action text NOT NULL CHECK (action IN ('disconnect', 'delete')),
    state text NOT NULL CHECK (state IN ('running', 'succeeded', 'cancelled')),
    -- Sessions a second; null for as fast as can be.
    rate bigint,
    actor text NOT NULL,
    request_id text NOT NULL,
    created_at timestamptz NOT NULL,
    finished_at timestamptz
);
CREATE INDEX operations_running ON operations (created_at) WHERE state = 'running';
CREATE INDEX operations_age ON operations (finished_at) WHERE finished_at IS NOT NULL;

-- The sessions that were there when the operation was made. The session id is the fence: the client's next session
-- is not hit.
CREATE TABLE operation_targets (
    operation_id uuid NOT NULL REFERENCES operations ON DELETE CASCADE,
    client_id text COLLATE "C" NOT NULL,
    session_id uuid NOT NULL,
    -- Null while it is to be done.
    outcome text,
    PRIMARY KEY (operation_id, client_id)
);
CREATE INDEX operation_targets_pending ON operation_targets (operation_id, client_id) WHERE outcome IS NULL;
