-- Which version of the protocol each host's worker speaks, so that an upgrade knows who is behind.

SET LOCAL search_path = cleanroom, pg_catalog;

CREATE TABLE worker (
    name text PRIMARY KEY,
    protocol integer NOT NULL,
    problem text NOT NULL DEFAULT '',               -- why it is given nothing to do
    attached_at timestamptz NOT NULL DEFAULT now()
);
