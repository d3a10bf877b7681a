-- What is published can be taken back: requests to the publisher, releases in channels over time, security fixes.

SET LOCAL search_path = cleanroom, pg_catalog;

CREATE TYPE request_kind AS ENUM ('rollback', 'withdraw', 'verify', 'repair', 'collect');
CREATE TYPE request_state AS ENUM ('pending', 'done', 'refused');
CREATE TYPE removal AS ENUM ('rollback', 'withdrawal', 'retention');
ALTER TYPE publication_state ADD VALUE 'removed';
ALTER TYPE publication_state ADD VALUE 'withdrawn';

-- What a person asks of the publisher, which alone writes the repository.
CREATE TABLE repository_request (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind request_kind NOT NULL,
    actor text NOT NULL CHECK (actor <> ''),
    reason text NOT NULL DEFAULT '',
    target bigint REFERENCES generation,            -- of a rollback: the generation whose contents are wanted
    release_id bigint REFERENCES release,           -- of a withdrawal
    channel text CHECK (channel ~ '^[a-z][a-z0-9-]{0,31}$'),    -- of a withdrawal; null: from all
    forced boolean NOT NULL DEFAULT false,          -- the person was warned, and insists
    state request_state NOT NULL DEFAULT 'pending',
    why text NOT NULL DEFAULT '',
    result jsonb NOT NULL DEFAULT '{}',
    generation bigint REFERENCES generation ON DELETE SET NULL,  -- what came of it; null: no generation did
    requested_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CHECK (kind NOT IN ('rollback', 'withdraw') OR reason ~ '\S'),
    CHECK ((kind = 'rollback') = (target IS NOT NULL)),
    CHECK ((kind = 'withdraw') = (release_id IS NOT NULL)),
    CHECK (channel IS NULL OR kind = 'withdraw'),
    CHECK ((state = 'pending') = (finished_at IS NULL)),
    CHECK (state <> 'refused' OR why <> '')
);
CREATE INDEX repository_request_pending ON repository_request (id) WHERE state = 'pending';

-- The releases in generation N: added_in <= N and (removed_in is null or removed_in > N).
CREATE TABLE channel_release (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release_id bigint NOT NULL REFERENCES release,
    channel text NOT NULL,
    added_in bigint NOT NULL REFERENCES generation,
    removed_in bigint REFERENCES generation,        -- null: it is there
    removal removal,                                -- null: it is there
    why text NOT NULL DEFAULT '',                   -- of its removal
    CHECK (removed_in > added_in),
    CHECK ((removed_in IS NULL) = (removal IS NULL))
);
CREATE UNIQUE INDEX channel_release_once ON channel_release (release_id, channel) WHERE removed_in IS NULL;
CREATE INDEX channel_release_history ON channel_release (release_id, channel, id);
CREATE INDEX channel_release_added ON channel_release (added_in);
CREATE INDEX channel_release_removed ON channel_release (removed_in) WHERE removed_in IS NOT NULL;
INSERT INTO channel_release (release_id, channel, added_in)
SELECT release_id, channel, generation FROM publication WHERE state = 'published';

-- Once withdrawn, a version never comes back into its channel.
ALTER TABLE channel_package ADD withdrawn_by bigint REFERENCES repository_request;
CREATE INDEX channel_package_withdrawn ON channel_package (id) WHERE withdrawn_by IS NOT NULL;
CREATE INDEX channel_package_added ON channel_package (added_in);
CREATE INDEX channel_package_removed ON channel_package (removed_in) WHERE removed_in IS NOT NULL;
CREATE INDEX channel_package_release ON channel_package (release_id);
CREATE INDEX channel_package_version ON channel_package (name, version, architecture);

-- Releases that say that they mend a hole in security, and by what they say it.
CREATE TABLE security_fix (
    release_id bigint PRIMARY KEY REFERENCES release,
    evidence text NOT NULL CHECK (evidence <> '')
);

CREATE TRIGGER inserted AFTER INSERT ON repository_request REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION notify_first_id('cleanroom_publication');
CREATE TRIGGER updated AFTER UPDATE ON repository_request REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION notify_first_id('cleanroom_request');
