-- Authorisation policies and block rules: who may do what in a cluster, and who is kept out.

ALTER TABLE clusters
    -- Another with every change to the policies and block rules, and with each cluster, also one of an id
    -- that was used before: what a reader has of them is then void.
    ADD COLUMN access_revision uuid NOT NULL DEFAULT gen_random_uuid();

CREATE TABLE authorization_policies (
    cluster_id text COLLATE "C" NOT NULL REFERENCES clusters ON DELETE CASCADE,
    policy_id uuid NOT NULL,
    -- Smaller is asked first.
    priority integer NOT NULL,
    description text,
    -- What it says and for what, as the API takes it.
    spec jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    -- One more with every change; the record's ETag.
    version bigint NOT NULL,
    PRIMARY KEY (cluster_id, policy_id),
    CONSTRAINT authorization_policies_priority UNIQUE (cluster_id, priority)
);

CREATE TABLE block_rules (
    cluster_id text COLLATE "C" NOT NULL REFERENCES clusters ON DELETE CASCADE,
    block_rule_id uuid NOT NULL,
    -- Whom it keeps out, as the API takes it.
    spec jsonb NOT NULL,
    -- From when on it no longer does.
    expires_at timestamptz,
    -- Why, for people.
    reason text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    -- One more with every change; the record's ETag.
    version bigint NOT NULL,
    PRIMARY KEY (cluster_id, block_rule_id)
);
