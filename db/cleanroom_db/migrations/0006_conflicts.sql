-- What every package holds and needs, and which packages break each other where they meet.

SET LOCAL search_path = cleanroom, pg_catalog;

CREATE TYPE file_type AS ENUM ('file', 'directory', 'link', 'other');
CREATE TYPE conflict_kind AS ENUM ('file', 'dependency', 'unreadable');

-- One row for each content: published packages and candidates share it, and so do all channels.
CREATE TABLE package (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sha256 sha256 NOT NULL UNIQUE,                  -- of the bytes as built, before signing
    format text NOT NULL CHECK (format IN ('deb', 'udeb', 'rpm')),
    name text NOT NULL,
    version text NOT NULL,
    architecture text NOT NULL,
    relations text NOT NULL,                        -- a paragraph for the solver: what it needs, provides, excludes
    diverts text[] NOT NULL DEFAULT '{}',           -- paths that its scripts move out of the way
    problem text,                                   -- null: everything was read; else why its files are not known
    read_at timestamptz NOT NULL DEFAULT now()
);

-- A path is longer than an index takes, and the same in many packages and versions.
CREATE TABLE path (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),    -- the SHA-256 of the path
    path text NOT NULL
);

CREATE TABLE package_file (
    path_id bigint NOT NULL REFERENCES path,
    size bigint NOT NULL CHECK (size >= 0),
    package_id integer NOT NULL REFERENCES package ON DELETE CASCADE,
    mode integer NOT NULL,                          -- permissions, without the type
    type file_type NOT NULL,
    digest bytea,                                   -- of regular files; SHA-256, or what an rpm's header says
    target text,                                    -- of links
    PRIMARY KEY (package_id, path_id)
);
-- Most packages have the same directories. What is no directory is looked for among all, a directory among the rest.
CREATE INDEX package_file_path ON package_file (path_id, package_id) WHERE type <> 'directory';
CREATE INDEX package_file_directory ON package_file (path_id, package_id) WHERE type = 'directory';

-- Releases were looked at together with what a channel publishes and with those that wait beside them.
CREATE TABLE conflict_check (
    release_id bigint NOT NULL REFERENCES release,
    channel text NOT NULL,
    target text NOT NULL,
    basis text NOT NULL,                            -- a digest of all that was looked at: another one, another check
    packages integer NOT NULL CHECK (packages >= 0),
    note text NOT NULL DEFAULT '',                  -- what could not be looked at
    checked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (release_id, channel, target)
);

CREATE TABLE conflict (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release_id bigint NOT NULL,
    channel text NOT NULL,
    target text NOT NULL,
    kind conflict_kind NOT NULL,
    package text NOT NULL,
    other text,                                     -- the other package; null: there is none
    with_release bigint REFERENCES release,         -- the candidate that it is in; null: it is published, or none is
    subject text NOT NULL,                          -- the path, or the dependency
    why text NOT NULL,
    FOREIGN KEY (release_id, channel, target) REFERENCES conflict_check ON DELETE CASCADE
);
CREATE INDEX conflict_of_check ON conflict (release_id, channel, target, id);
CREATE INDEX channel_package_built ON channel_package (built_sha256) WHERE removed_in IS NULL;
CREATE INDEX conflict_with ON conflict (with_release) WHERE with_release IS NOT NULL;
CREATE INDEX artifact_content ON artifact (sha256);
