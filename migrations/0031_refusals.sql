-- What clients were refused: one row for each kind, reason, code, client id, user name and address of a cluster, with
-- how often and when. A bounded number for each cluster; those that were repeated least recently go first.
CREATE TABLE refusals (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster_id text COLLATE "C" NOT NULL REFERENCES clusters ON DELETE CASCADE,
    kind text COLLATE "C" NOT NULL,
    reason text COLLATE "C" NOT NULL,
    code smallint NOT NULL,
    -- All three null: what could not be told apart any more, because there was too much of it at once. The program
    -- cuts texts so that the three fit an index entry.
    client_id text COLLATE "C",
    username text COLLATE "C",
    ip text COLLATE "C",
    detail text NOT NULL,
    count bigint NOT NULL CHECK (count > 0),
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    -- When the present series of them began: after a pause there is a new one.
    series_at timestamptz NOT NULL,
    CONSTRAINT refusals_one UNIQUE NULLS NOT DISTINCT (cluster_id, kind, reason, code, client_id, username, ip)
);
CREATE INDEX refusals_recent ON refusals (cluster_id, last_at, id);
CREATE INDEX refusals_client ON refusals (cluster_id, client_id, last_at, id);
