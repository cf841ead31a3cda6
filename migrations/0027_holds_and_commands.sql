-- Client ids that operators have refused for a while, and operations on a single session that a request
-- did not wait out.

CREATE TABLE client_holds (
    cluster_id text COLLATE "C" NOT NULL REFERENCES clusters ON DELETE CASCADE,
    client_id text COLLATE "C" NOT NULL,
    -- In force before this. A row that is past it says nothing, whether or not it was removed yet.
    until timestamptz NOT NULL,
    reason text,
    actor text NOT NULL,
    request_id text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (cluster_id, client_id)
);
CREATE INDEX client_holds_until ON client_holds (until);

-- Another with every change to the cluster's holds, and with each cluster, also one of an id that was used before:
-- while it is the same, so are the holds.
ALTER TABLE clusters ADD COLUMN holds_version uuid NOT NULL DEFAULT gen_random_uuid();

ALTER TABLE operations
    -- A `command` is about one session, was ordered by a request of its own and is under way already.
    ADD COLUMN kind text NOT NULL DEFAULT 'purge' CHECK (kind IN ('purge', 'command')),
    ADD COLUMN will text NOT NULL DEFAULT 'publish' CHECK (will IN ('publish', 'suppress')),
    ADD COLUMN reason text;
-- The attachment that is meant; null for any.
ALTER TABLE operation_targets ADD COLUMN epoch bigint;
