-- What one commit says of one session is one row: each row costs an entry in two indexes, and a session that comes
-- and goes says four things at once.

ALTER TABLE session_events
    -- What was said before it in the same commit: an array of kind, at and detail, whose numbers end just below `seq`.
    -- Null for nothing. Session, epoch and author are those of the row.
    ADD COLUMN earlier jsonb;
