-- Bisections: which change broke something, found by trials.

SET LOCAL search_path = cleanroom, pg_catalog;

CREATE TYPE bisection_axis AS ENUM ('commit', 'image', 'dependencies');
CREATE TYPE bisection_state AS ENUM ('running', 'found', 'undecided', 'refused', 'spoiled', 'cancelled');
CREATE TYPE verdict AS ENUM ('good', 'bad', 'skipped');

CREATE TABLE bisection (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product text NOT NULL REFERENCES product,
    target text NOT NULL,
    axis bisection_axis NOT NULL,
    good text NOT NULL,                             -- the two ends, as they were asked for
    bad text NOT NULL,
    channel text NOT NULL CHECK (channel ~ '^[a-z][a-z0-9-]{0,31}$'),
    phase text NOT NULL,                            -- by what a candidate is judged: this phase;
    step text,                                      -- null: the phase as a whole
    test text,                                      -- null: no test case, but the step or the phase
    runs integer NOT NULL CHECK (runs BETWEEN 1 AND 100),
    parallel integer NOT NULL CHECK (parallel BETWEEN 1 AND 16),
    state bisection_state NOT NULL DEFAULT 'running',
    why text NOT NULL DEFAULT '',
    suspects integer[] NOT NULL DEFAULT '{}',       -- the candidates of which one is the first bad one; one: found
    requested_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CHECK ((state = 'running') = (finished_at IS NULL)),
    CHECK (state <> 'found' OR cardinality(suspects) = 1)
);
CREATE INDEX bisection_running ON bisection (id) WHERE finished_at IS NULL;

-- What may be the first bad one, each after all that it follows. 0 is the good end, the last one the bad end.
CREATE TABLE bisection_candidate (
    bisection_id bigint NOT NULL REFERENCES bisection,
    position integer NOT NULL CHECK (position >= 0),
    parents integer[] NOT NULL DEFAULT '{}',        -- the positions of those that it follows at once
    name text NOT NULL,                             -- a commit, the digest of an image, an attempt of a build
    commit commit_id NOT NULL,                      -- what is built
    conditions jsonb NOT NULL DEFAULT '{}',
    author text NOT NULL DEFAULT '',
    dated_at timestamptz,
    subject text NOT NULL DEFAULT '',
    verdict verdict,                                -- null: not known
    why text NOT NULL DEFAULT '',
    judged_at timestamptz,
    PRIMARY KEY (bisection_id, position)
);

CREATE TABLE bisection_probe (
    trial_id bigint PRIMARY KEY REFERENCES trial,
    bisection_id bigint NOT NULL,
    position integer NOT NULL,
    run integer NOT NULL CHECK (run > 0),
    lane integer NOT NULL CHECK (lane > 0),         -- which of the builders that Buildbot has for it
    verdict verdict,                                -- null: its trial goes on
    UNIQUE (bisection_id, position, run),
    FOREIGN KEY (bisection_id, position) REFERENCES bisection_candidate
);

CREATE TRIGGER inserted AFTER INSERT ON bisection REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION notify_first_id('cleanroom_bisection');
