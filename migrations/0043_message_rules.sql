-- Message enhancement rules: what a cluster adds to what its clients publish.

ALTER TABLE clusters
    -- Another with every change to the rules, and with each cluster, also one of an id that was used before:
    -- what a reader has of them is then void.
    ADD COLUMN message_rules_revision uuid NOT NULL DEFAULT gen_random_uuid();

CREATE TABLE message_rules (
    cluster_id text COLLATE "C" NOT NULL REFERENCES clusters ON DELETE CASCADE,
    message_rule_id uuid NOT NULL,
    -- Smaller applies first.
    priority integer NOT NULL,
    -- What people call it, and say of it.
    name text NOT NULL,
    description text,
    is_enabled boolean NOT NULL,
    -- To which messages it applies and what it adds, as the API takes it.
    spec jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    -- One more with every change; the record's ETag.
    version bigint NOT NULL,
    PRIMARY KEY (cluster_id, message_rule_id),
    CONSTRAINT message_rules_priority UNIQUE (cluster_id, priority)
);
