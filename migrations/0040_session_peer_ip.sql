-- The peer's address as the program read it. The function that read it out of the text ran two patterns for
-- each connect and each disconnect, only to feed the index.

ALTER TABLE sessions
    -- Null where the peer is no `address:port`.
    ADD COLUMN peer_ip inet;
UPDATE sessions SET peer_ip = session_peer_address(peer);
DROP INDEX sessions_peer;
DROP FUNCTION session_peer_address;
CREATE INDEX sessions_peer_ip ON sessions (cluster_id, peer_ip);
