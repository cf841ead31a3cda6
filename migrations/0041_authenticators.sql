-- Authenticators: the links of each cluster's authentication chain.

ALTER TABLE clusters
    -- Another with every change to the chain, and with each cluster, also one of an id that was used before:
    -- what a reader has of it is then void.
    ADD COLUMN authenticators_revision uuid NOT NULL DEFAULT gen_random_uuid();

CREATE TABLE authenticators (
    cluster_id text COLLATE "C" NOT NULL REFERENCES clusters ON DELETE CASCADE,
    authenticator_id uuid NOT NULL,
    -- Smaller is asked first.
    position integer NOT NULL,
    description text,
    is_enabled boolean NOT NULL,
    -- How it knows clients. Holds secrets.
    settings jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    -- One more with every change; the record's ETag.
    version bigint NOT NULL,
    PRIMARY KEY (cluster_id, authenticator_id),
    CONSTRAINT authenticators_position UNIQUE (cluster_id, position)
);

-- Clusters that exist go on as they are: users by their passwords.
INSERT INTO authenticators
SELECT id, gen_random_uuid(), 100, NULL, true, '{"kind": "password"}', created_at, created_at, 1 FROM clusters;
