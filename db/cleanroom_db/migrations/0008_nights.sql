-- What a channel publishes, tested every night; and which packages were installed when a phase ended.

SET LOCAL search_path = cleanroom, pg_catalog;

-- Each set of packages once, whatever phases ended with it.
CREATE TABLE package_state (
    digest sha256 PRIMARY KEY,                      -- of the packages as JSON with sorted keys
    packages jsonb NOT NULL,                        -- versions by name; of rpm packages by `rpm:` and the name
    first_seen_at timestamptz NOT NULL DEFAULT now()
);
-- null: its guest could not say it (any more)
ALTER TABLE phase ADD package_state sha256 REFERENCES package_state;

CREATE TABLE night (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel text NOT NULL CHECK (channel ~ '^[a-z][a-z0-9-]{0,31}$'),
    date date,                                      -- null: a person asked for it
    requested_by text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    trials bigint[] NOT NULL DEFAULT '{}',
    UNIQUE (channel, date)                          -- once a night, whatever is restarted
);
CREATE INDEX night_history ON night (channel, id DESC);
