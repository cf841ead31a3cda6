-- What happened to sessions, in the order in which it was committed.
--
-- A sequence of Postgres numbers in the order of asking, with gaps where a transaction was taken back: a
-- reader that has seen 7 could not know whether 6 is still to come. Here the number is taken from a row that
-- stays locked until the commit, last in its transaction: what is visible is always the numbers from
-- `first` to `last`, none missing, and no lower one appears later.

CREATE TABLE session_event_heads (
    -- No reference: a cluster that is made again under the id of a deleted one goes on with its numbers, so
    -- that nobody takes the one's events for the other's.
    cluster_id text COLLATE "C" PRIMARY KEY,
    -- The number of the last event; 0 for none yet.
    last bigint NOT NULL,
    -- The lowest number that may still be read; what is below is being forgotten.
    first bigint NOT NULL
);

CREATE TABLE session_events (
    cluster_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    client_id text COLLATE "C" NOT NULL,
    -- No reference: history outlives the session.
    session_id uuid NOT NULL,
    epoch bigint NOT NULL,
    kind text NOT NULL,
    detail jsonb NOT NULL,
    -- Who, and in which request, where it was an operator.
    actor text,
    request_id text,
    PRIMARY KEY (cluster_id, seq)
);
CREATE INDEX session_events_client ON session_events (cluster_id, client_id, seq);
