-- The record: what was tagged, what was built from it, and what was published.
--
-- Times are timestamptz, durations are seconds, sizes are bytes, digests are lower-case hexadecimal.
-- Text that came out of a repository or a guest is data, never a file name or a command.

CREATE SCHEMA cleanroom;
SET LOCAL search_path = cleanroom, pg_catalog;

CREATE TABLE migration (
    number integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- Vocabulary ------------------------------------------------------------------------------------------

CREATE TYPE outcome AS ENUM
    ('passed', 'failed', 'regressed', 'flaky', 'skipped', 'cancelled', 'infrastructure');
CREATE TYPE ref_kind AS ENUM ('tag', 'commit');
CREATE TYPE ref_change AS ENUM ('created', 'moved', 'deleted');
CREATE TYPE ref_event_state AS ENUM ('recorded', 'claimed', 'ignored', 'refused');
CREATE TYPE tag_kind AS ENUM ('annotated', 'lightweight', 'none', 'unknown');
CREATE TYPE signature_state AS ENUM ('none', 'good', 'bad', 'unknown_key', 'expired', 'unchecked');
CREATE TYPE signature_policy AS ENUM ('optional', 'required');
CREATE TYPE release_state AS ENUM
    ('waiting', 'building', 'passed', 'published', 'failed', 'held', 'cancelled', 'withdrawn');
CREATE TYPE publication_state AS ENUM ('pending', 'published', 'refused', 'cancelled');
CREATE TYPE host_state AS ENUM ('ready', 'draining', 'drained');

CREATE DOMAIN commit_id AS text CHECK (VALUE ~ '^([0-9a-f]{40}|[0-9a-f]{64})$');
CREATE DOMAIN sha256 AS text CHECK (VALUE ~ '^[0-9a-f]{64}$');
-- A name that no command can take for an option and no terminal for a control sequence.
CREATE DOMAIN ref_name AS text
    CHECK (length(VALUE) BETWEEN 1 AND 255 AND VALUE !~ '[\x01-\x1f\x7f]' AND VALUE !~ '^-');
-- One component of a path, and never a hidden one.
CREATE DOMAIN file_name AS text CHECK (VALUE ~ '^[A-Za-z0-9_][A-Za-z0-9._+~^%@=,-]{0,254}$');

-- What is watched -------------------------------------------------------------------------------------

CREATE TABLE product (
    name text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9+.-]{0,63}$'),
    url text NOT NULL CHECK (url <> '' AND url !~ '[\x01-\x1f\x7f]' AND url !~ '^-'),
    recipe jsonb,                                   -- null: the product's own file is used
    tag_patterns text[] NOT NULL DEFAULT '{*}',      -- as fnmatch(3); one of these must match
    branches text[] NOT NULL DEFAULT '{}',          -- the commits of these are recorded
    signature_policy signature_policy NOT NULL DEFAULT 'optional',
    existing boolean NOT NULL DEFAULT false,        -- the first look releases the tags that are there
    created_at timestamptz NOT NULL DEFAULT now(),
    removed_at timestamptz,                         -- null: watched
    watched_at timestamptz,                         -- null: not looked at yet
    watch_error text                                -- null: the last look went well
);

CREATE TABLE ref_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product text NOT NULL REFERENCES product,
    kind ref_kind NOT NULL DEFAULT 'tag',
    ref ref_name NOT NULL,
    commit commit_id,                               -- null: the ref watch looks it up
    previous_commit commit_id,
    change ref_change NOT NULL DEFAULT 'created',
    tag_kind tag_kind NOT NULL DEFAULT 'unknown',
    tagger text,
    message text,
    signature signature_state NOT NULL DEFAULT 'unchecked',
    branch text,
    tagged_at timestamptz,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    recorded_by text NOT NULL DEFAULT 'sql',
    state ref_event_state NOT NULL DEFAULT 'recorded',
    why text NOT NULL DEFAULT '',
    not_before timestamptz NOT NULL DEFAULT now(),  -- a claim that met a fault of the infrastructure is postponed
    settled_at timestamptz,                         -- claimed, ignored or refused since then
    CHECK (kind = 'tag' OR (ref ~ '^([0-9a-f]{40}|[0-9a-f]{64})$' AND (commit IS NULL OR commit = ref))),
    CHECK (change <> 'deleted' OR (commit IS NULL AND previous_commit IS NOT NULL)),
    CHECK (change <> 'moved' OR (commit IS NOT NULL AND previous_commit IS NOT NULL)),
    CHECK (state <> 'claimed' OR (commit IS NOT NULL AND change = 'created')),
    CHECK (state IN ('recorded', 'claimed') OR why <> '')
);
-- A ref waits once. What it was before is history, so a tag that goes from A to B and back is three rows.
CREATE UNIQUE INDEX ref_event_waits_once ON ref_event (product, kind, ref, change) WHERE state = 'recorded';
CREATE INDEX ref_event_claimable ON ref_event (id) WHERE state = 'recorded' AND commit IS NOT NULL;
CREATE INDEX ref_event_unresolved ON ref_event (id) WHERE state = 'recorded' AND commit IS NULL;
CREATE INDEX ref_event_latest ON ref_event (product, kind, ref, id DESC);
CREATE INDEX ref_event_branch ON ref_event (product, branch, id DESC) WHERE branch IS NOT NULL;

-- What was built --------------------------------------------------------------------------------------

CREATE TABLE release (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product text NOT NULL REFERENCES product,
    ref ref_name NOT NULL,
    commit commit_id NOT NULL,
    kind ref_kind NOT NULL,
    version text,                                   -- null: known only once the source was looked at
    state release_state NOT NULL DEFAULT 'waiting',
    why text NOT NULL DEFAULT '',
    hold_reason text,                               -- null: nobody holds it
    ref_event_id bigint NOT NULL UNIQUE REFERENCES ref_event,
    recipe jsonb NOT NULL,
    recipe_digest text NOT NULL,
    channel text NOT NULL CHECK (channel ~ '^[a-z][a-z0-9-]{0,31}$'),
    requested_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,                        -- null: builds go on
    UNIQUE (product, ref),
    CHECK ((finished_at IS NULL) = (state IN ('waiting', 'building')))
);
CREATE INDEX release_open ON release (id) WHERE finished_at IS NULL;

CREATE TABLE build (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release_id bigint NOT NULL REFERENCES release,
    target text NOT NULL CHECK (target ~ '^[a-z0-9][a-z0-9.+-]*/[a-z0-9][a-z0-9.+-]*$'),
    phases text[] NOT NULL CHECK (cardinality(phases) > 0),     -- the planned order
    UNIQUE (release_id, target)
);

CREATE TABLE attempt (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    build_id bigint NOT NULL REFERENCES build,
    number integer NOT NULL CHECK (number > 0),
    series_start integer NOT NULL,                  -- the first attempt since a person last asked for one
    outcome outcome,                                -- null: not finished
    why text NOT NULL DEFAULT '',
    lease_owner text,                               -- null: nobody works on it
    lease_expires_at timestamptz,
    not_before timestamptz NOT NULL DEFAULT now(),
    queued_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    worker text,
    isolation text,
    buildbot_url text,
    UNIQUE (build_id, number),
    CHECK (series_start BETWEEN 1 AND number),
    CHECK ((outcome IS NULL) = (finished_at IS NULL)),
    CHECK ((lease_owner IS NULL) = (lease_expires_at IS NULL)),
    CHECK (lease_owner IS NULL OR started_at IS NOT NULL)
);
CREATE UNIQUE INDEX attempt_one_unfinished ON attempt (build_id) WHERE finished_at IS NULL;
CREATE INDEX attempt_due ON attempt (not_before, id) WHERE finished_at IS NULL AND lease_owner IS NULL;
CREATE INDEX attempt_leased ON attempt (lease_expires_at) WHERE finished_at IS NULL AND lease_owner IS NOT NULL;

CREATE TABLE phase (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    attempt_id bigint NOT NULL REFERENCES attempt,
    position integer NOT NULL CHECK (position >= 0),
    name text NOT NULL,
    outcome outcome,                                -- null: not finished
    why text NOT NULL DEFAULT '',
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    image text,                                     -- these six: null until its guest was reset
    image_digest text,
    isolation text,
    network text,
    reset_method text,
    reset_seconds double precision CHECK (reset_seconds >= 0),
    seconds double precision CHECK (seconds >= 0),
    command_seconds double precision CHECK (command_seconds >= 0),      -- of these, inside guest commands
    tests_passed integer NOT NULL DEFAULT 0 CHECK (tests_passed >= 0),
    tests_failed integer NOT NULL DEFAULT 0 CHECK (tests_failed >= 0),
    tests_skipped integer NOT NULL DEFAULT 0 CHECK (tests_skipped >= 0),
    UNIQUE (attempt_id, name),
    CHECK ((outcome IS NULL) = (finished_at IS NULL))
);

CREATE TABLE step (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    phase_id bigint NOT NULL REFERENCES phase,
    position integer NOT NULL CHECK (position >= 0),
    name text NOT NULL,
    outcome outcome,                                -- null: not finished
    exit_status integer,                            -- null: it has none (a lost guest, a time limit)
    why text NOT NULL DEFAULT '',
    started_at timestamptz NOT NULL DEFAULT now(),
    seconds double precision CHECK (seconds >= 0),
    log_sha256 sha256,                              -- null: it printed nothing
    log_size bigint NOT NULL DEFAULT 0 CHECK (log_size >= 0),
    log_truncated boolean NOT NULL DEFAULT false,
    UNIQUE (phase_id, position)
);

CREATE TABLE test_case (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    phase_id bigint NOT NULL REFERENCES phase,
    step text NOT NULL,
    name text NOT NULL,
    outcome outcome NOT NULL,
    seconds double precision CHECK (seconds >= 0),  -- null: the program does not say
    message text NOT NULL DEFAULT ''
);
CREATE INDEX test_case_phase ON test_case (phase_id);

CREATE TABLE artifact (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    attempt_id bigint NOT NULL REFERENCES attempt,
    phase text NOT NULL,
    file file_name NOT NULL,
    sha256 sha256 NOT NULL,
    size bigint NOT NULL CHECK (size >= 0),
    kind text NOT NULL,
    package text,                                   -- these three: null where the file is no package
    version text,
    architecture text,
    UNIQUE (attempt_id, file)
);

-- What left -------------------------------------------------------------------------------------------

CREATE TABLE generation (
    number bigint PRIMARY KEY CHECK (number > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    switched_at timestamptz,                        -- null: it is being written
    actor text NOT NULL,
    reason text NOT NULL,
    added jsonb NOT NULL DEFAULT '[]',
    removed jsonb NOT NULL DEFAULT '[]'
);
CREATE UNIQUE INDEX generation_one_unswitched ON generation ((true)) WHERE switched_at IS NULL;

CREATE TABLE publication (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release_id bigint NOT NULL REFERENCES release,
    channel text NOT NULL CHECK (channel ~ '^[a-z][a-z0-9-]{0,31}$'),
    state publication_state NOT NULL DEFAULT 'pending',
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    generation bigint REFERENCES generation ON DELETE SET NULL,
    why text NOT NULL DEFAULT '',
    UNIQUE (release_id, channel),
    CHECK (state <> 'published' OR generation IS NOT NULL),
    CHECK (state <> 'refused' OR why <> '')
);
CREATE INDEX publication_pending ON publication (id) WHERE state = 'pending';

-- The contents of generation N: added_in <= N and (removed_in is null or removed_in > N).
CREATE TABLE channel_package (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel text NOT NULL,
    target text NOT NULL,
    format text NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    architecture text NOT NULL,
    file file_name NOT NULL,
    sha256 sha256 NOT NULL,                         -- of the bytes as published
    built_sha256 sha256 NOT NULL,                   -- of the bytes as built, before signing
    size bigint NOT NULL CHECK (size >= 0),
    release_id bigint REFERENCES release,           -- null: it came from elsewhere
    added_in bigint NOT NULL REFERENCES generation,
    removed_in bigint REFERENCES generation,        -- null: it is there
    CHECK (removed_in > added_in)
);
CREATE UNIQUE INDEX channel_package_once
    ON channel_package (channel, target, format, name, version, architecture) WHERE removed_in IS NULL;
CREATE INDEX channel_package_history
    ON channel_package (channel, target, format, name, version, architecture, id);

-- Who is at work --------------------------------------------------------------------------------------

CREATE TABLE service (
    name text PRIMARY KEY,
    state text NOT NULL,
    process_id integer,                             -- null: not running
    since timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    detail text NOT NULL DEFAULT ''
);

CREATE TABLE host (
    name text PRIMARY KEY,
    state host_state NOT NULL DEFAULT 'ready',
    isolations text[] NOT NULL,
    processors integer NOT NULL CHECK (processors > 0),
    memory_mib integer NOT NULL CHECK (memory_mib > 0),
    seen_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    reason text NOT NULL DEFAULT '',
    detail jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_subject ON audit (subject, id);

-- Who is woken ----------------------------------------------------------------------------------------

-- One message a statement, however many rows: 1,000 refs in one push wake the master once.
CREATE FUNCTION notify_first_id() RETURNS trigger LANGUAGE plpgsql SET search_path = cleanroom, pg_catalog AS $$
BEGIN
    PERFORM pg_notify(TG_ARGV[0], first.id::text) FROM (SELECT min(id) AS id FROM changed) AS first
     WHERE first.id IS NOT NULL;
    RETURN NULL;
END $$;

CREATE TRIGGER inserted AFTER INSERT ON ref_event REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION notify_first_id('cleanroom_ref_event');
CREATE TRIGGER updated AFTER UPDATE ON ref_event REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION notify_first_id('cleanroom_ref_event');
CREATE TRIGGER inserted AFTER INSERT ON attempt REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION notify_first_id('cleanroom_attempt');
CREATE TRIGGER inserted AFTER INSERT ON publication REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION notify_first_id('cleanroom_publication');
CREATE TRIGGER updated AFTER UPDATE ON publication REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION notify_first_id('cleanroom_publication');

-- The channel for those who watch: the id of the release about which something is new.
CREATE FUNCTION notify_change() RETURNS trigger LANGUAGE plpgsql SET search_path = cleanroom, pg_catalog AS $$
DECLARE
    changed bigint;
BEGIN
    CASE TG_TABLE_NAME
    WHEN 'release' THEN
        changed := NEW.id;
    WHEN 'publication' THEN
        changed := NEW.release_id;
    WHEN 'attempt' THEN
        SELECT build.release_id INTO changed FROM build WHERE build.id = NEW.build_id;
    WHEN 'phase' THEN
        SELECT build.release_id INTO changed
          FROM attempt JOIN build ON build.id = attempt.build_id WHERE attempt.id = NEW.attempt_id;
    WHEN 'step' THEN
        SELECT build.release_id INTO changed
          FROM phase JOIN attempt ON attempt.id = phase.attempt_id JOIN build ON build.id = attempt.build_id
         WHERE phase.id = NEW.phase_id;
    END CASE;
    PERFORM pg_notify('cleanroom_change', changed::text);
    RETURN NULL;
END $$;

CREATE TRIGGER changed AFTER INSERT OR UPDATE ON release FOR EACH ROW EXECUTE FUNCTION notify_change();
CREATE TRIGGER changed AFTER INSERT OR UPDATE ON publication FOR EACH ROW EXECUTE FUNCTION notify_change();
CREATE TRIGGER changed AFTER UPDATE OF started_at, finished_at ON attempt
    FOR EACH ROW EXECUTE FUNCTION notify_change();
CREATE TRIGGER changed AFTER INSERT OR UPDATE ON phase FOR EACH ROW EXECUTE FUNCTION notify_change();
CREATE TRIGGER changed AFTER INSERT OR UPDATE ON step FOR EACH ROW EXECUTE FUNCTION notify_change();
