-- How many connections were taken: counted every minute, and what the hours made of it.

CREATE TABLE usage_samples (
    cluster_id text COLLATE "C" NOT NULL REFERENCES clusters ON DELETE CASCADE,
    -- The minute, in full.
    at timestamptz NOT NULL,
    online bigint NOT NULL,
    offline bigint NOT NULL,
    -- The quota at that time; null for none.
    connections_limit bigint,
    PRIMARY KEY (cluster_id, at)
);
CREATE INDEX usage_samples_age ON usage_samples (at);

-- Written anew with each sample of the hour, so that it never differs from them while they are kept.
CREATE TABLE usage_hours (
    cluster_id text COLLATE "C" NOT NULL REFERENCES clusters ON DELETE CASCADE,
    -- When it began.
    hour timestamptz NOT NULL,
    samples bigint NOT NULL,
    total_peak bigint NOT NULL,
    total_p95 bigint NOT NULL,
    online_peak bigint NOT NULL,
    online_p95 bigint NOT NULL,
    -- The quota at the last sample; null for none.
    connections_limit bigint,
    PRIMARY KEY (cluster_id, hour)
);
CREATE INDEX usage_hours_age ON usage_hours (hour);
