-- Unions: a release's packages, installed in a guest together with all that its channel has or is to get.

SET LOCAL search_path = cleanroom, pg_catalog;

-- What a release is installed together with is chosen once it was built.
CREATE TABLE union_choice (
    release_id bigint PRIMARY KEY REFERENCES release,
    channel text NOT NULL,
    trial_id bigint UNIQUE REFERENCES trial,        -- null: nothing is to be installed together
    problem text NOT NULL DEFAULT '',               -- why it could not be chosen yet
    left_out text[] NOT NULL DEFAULT '{}',          -- the names of packages that cannot be installed with the others
    note text NOT NULL DEFAULT '',                  -- what is not among it
    basis text NOT NULL DEFAULT '',                 -- tells all that was there when it was chosen, see conflict_check
    chosen_at timestamptz NOT NULL DEFAULT now(),
    CHECK (problem = '' OR trial_id IS NULL)
);

CREATE TABLE union_member (
    release_id bigint NOT NULL REFERENCES union_choice ON DELETE CASCADE,
    target text NOT NULL,
    position integer NOT NULL,                      -- the release's own come first
    package integer NOT NULL,                       -- its content, which may be forgotten before this is
    name text NOT NULL,
    file file_name NOT NULL,
    sha256 sha256 NOT NULL,                         -- as built
    published sha256,                               -- as published, if it is
    own boolean NOT NULL,                           -- it is the release's
    PRIMARY KEY (release_id, target, file)
);
