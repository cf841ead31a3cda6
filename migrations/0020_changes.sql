-- What the control plane remembers of the changes that it was asked for: idempotency keys, so that one
-- asked for twice is made once, and the audit log.

-- One row for each key that a caller has sent within a day.
CREATE TABLE idempotency_keys (
    caller text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    -- SHA-256 of method, path, query and body.
    request_hash bytea NOT NULL,
    -- The run of the program that works, or worked, on it. A row of another run that has no answer
    -- belongs to a run that died.
    run uuid NOT NULL,
    created_at timestamptz NOT NULL,
    -- Set before a command goes to the data plane, whose effect no transaction of ours can hold.
    dispatched boolean NOT NULL DEFAULT false,
    -- Whether the work on it has ended without anybody knowing the outcome.
    unknown boolean NOT NULL DEFAULT false,
    -- The answer; written in the transaction of the effect.
    status smallint,
    headers jsonb,
    body bytea,
    -- Whether the data plane had to enforce the change before it was answered.
    enforced boolean NOT NULL DEFAULT false,
    PRIMARY KEY (caller, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- One row for each change that was asked for. Written before the effect and completed after it: a
-- row that says `started` is being worked on, or is what a crash has left.
CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text COLLATE "C" NOT NULL,
    key_id text COLLATE "C",
    ip text,
    request_id text COLLATE "C" NOT NULL,
    operation text COLLATE "C" NOT NULL,
    method text NOT NULL,
    path text NOT NULL,
    -- No reference: the log outlives what it tells of.
    cluster_id text COLLATE "C",
    client_id text COLLATE "C",
    outcome text NOT NULL CHECK (outcome IN ('started', 'succeeded', 'refused', 'failed')),
    status smallint,
    code text,
    duration_ms bigint,
    before jsonb,
    after jsonb
);
CREATE INDEX audit_log_cluster ON audit_log (cluster_id, id);
CREATE INDEX audit_log_client ON audit_log (cluster_id, client_id, id) WHERE client_id IS NOT NULL;
CREATE INDEX audit_log_actor ON audit_log (actor, id);
CREATE INDEX audit_log_request ON audit_log (request_id);
CREATE INDEX audit_log_age ON audit_log (at);
