-- What of the repository a remote has, so that bringing it there goes on where it stopped; gates waived for a promotion.

SET LOCAL search_path = cleanroom, pg_catalog;

CREATE TABLE delivery (
    remote text PRIMARY KEY CHECK (remote !~ '@.*/'),   -- its address; there are no credentials in it
    generation bigint,                              -- what it has as a whole; null: nothing yet
    delivered_at timestamptz,
    bringing bigint,                                -- what is on its way; null: nothing is
    problem text NOT NULL DEFAULT '',               -- why that goes no further
    CHECK ((generation IS NULL) = (delivered_at IS NULL))
);

CREATE TABLE delivered_file (
    remote text NOT NULL REFERENCES delivery ON DELETE CASCADE,
    place text NOT NULL,                            -- its path below a generation
    identity text NOT NULL,                         -- what tells it from what was there before
    PRIMARY KEY (remote, place)
);

-- A waiver for the promotion into a channel; null: for wherever the release is judged.
ALTER TABLE gate_waiver ADD channel text CHECK (channel ~ '^[a-z][a-z0-9-]{0,31}$');
