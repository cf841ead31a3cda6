-- What operators put on a session, and what its list can be narrowed by.

ALTER TABLE sessions
    -- The operator's part: the caller's own marks, and whether DELETE is refused.
    ADD COLUMN labels jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN protected boolean NOT NULL DEFAULT false;

-- The address within `address:port`; null for what has another form. Never fails, because a record
-- must not be refused for it.
CREATE FUNCTION session_peer_address(peer text) RETURNS inet
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN peer ~ '^(25[0-5]|2[0-4]\d|1?\d?\d)(\.(25[0-5]|2[0-4]\d|1?\d?\d)){3}:\d+$'
        THEN split_part(peer, ':', 1)::inet
    -- Without a zone, which inet does not know; by the shape of a SocketAddr, which is valid.
    WHEN peer ~ '^\[[0-9a-f:.]+\]:\d+$' THEN split_part(substr(peer, 2), ']', 1)::inet
END;

-- Each connect writes every index of its row, so each of these is paid for a million times: they are for
-- the questions that pick few rows of many and that an operator asks in a hurry.
CREATE INDEX sessions_connected_at ON sessions (cluster_id, connected_at);
CREATE INDEX sessions_disconnected_at ON sessions (cluster_id, disconnected_at) WHERE disconnected_at IS NOT NULL;
CREATE INDEX sessions_expires_at ON sessions (cluster_id, expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX sessions_peer ON sessions (cluster_id, session_peer_address(peer));
-- Few sessions have any: the rest costs nothing.
CREATE INDEX sessions_labels ON sessions USING gin (labels jsonb_path_ops) WHERE labels <> '{}';
CREATE INDEX sessions_operator_expiry ON sessions (cluster_id, client_id)
    WHERE expiry_override_secs IS NOT NULL OR expiry_override_at IS NOT NULL;
CREATE INDEX sessions_protected ON sessions (cluster_id, client_id) WHERE protected;

-- Who subscribes to what matches a topic: the filter as topics are held against it, without
-- `$share/{group}/`.
ALTER TABLE subscriptions ADD COLUMN topic_filter text COLLATE "C" NOT NULL GENERATED ALWAYS AS (
    CASE WHEN starts_with(filter, '$share/')
        THEN substr(filter, 8 + position('/' IN substr(filter, 8)))
        ELSE filter
    END
) STORED;
CREATE INDEX subscriptions_topic_filter ON subscriptions (topic_filter, session_id);
