-- What operators do in a client's place: sessions that begin before their client has ever connected, and
-- subscriptions made over the API.

-- Null until the client's first connection.
ALTER TABLE sessions
    ALTER COLUMN protocol DROP NOT NULL,
    ALTER COLUMN peer DROP NOT NULL,
    ALTER COLUMN listener DROP NOT NULL,
    ALTER COLUMN transport DROP NOT NULL,
    ALTER COLUMN connected_at DROP NOT NULL;

-- Who asked for it last.
ALTER TABLE subscriptions
    ADD COLUMN origin text NOT NULL DEFAULT 'client' CHECK (origin IN ('client', 'operator'));
