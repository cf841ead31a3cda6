-- The node that has a session's connection, or had the last one; null of a record from before nodes had names.
-- Not indexed: with one node that serves it picks all rows or none, and each connect would pay for it.

ALTER TABLE sessions ADD COLUMN node text COLLATE "C";
