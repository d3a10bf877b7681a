-- Canaries: what a generation brought in, installed by a consumer in a clean guest, and taken out if that fails.

SET LOCAL search_path = cleanroom, pg_catalog;

ALTER TYPE trial_purpose ADD VALUE 'canary';
ALTER TYPE removal ADD VALUE 'canary';

-- A release that came into a channel with packages, and is to be installed from there.
CREATE TABLE canary (
    place bigint PRIMARY KEY REFERENCES channel_release ON DELETE CASCADE,
    trial_id bigint UNIQUE REFERENCES trial,        -- the latest; null: none was begun yet
    problem text NOT NULL DEFAULT ''                -- why what failed could not be taken out
);
CREATE INDEX canary_waiting ON canary (place) WHERE trial_id IS NULL;

-- What consumers see changed.
CREATE FUNCTION notify_generation() RETURNS trigger LANGUAGE plpgsql SET search_path = cleanroom, pg_catalog AS $$
BEGIN
    PERFORM pg_notify('cleanroom_generation', NEW.number::text);
    RETURN NULL;
END $$;
CREATE TRIGGER switched AFTER UPDATE OF switched_at ON generation
    FOR EACH ROW WHEN (NEW.switched_at IS NOT NULL) EXECUTE FUNCTION notify_generation();

-- The consumer's page tells where each package came from.
CREATE INDEX channel_package_published ON channel_package (sha256) WHERE removed_in IS NULL;
