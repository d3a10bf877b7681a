-- What hosts say of their guests, and news of what belongs to no release.

SET LOCAL search_path = cleanroom, pg_catalog;

ALTER TABLE host
    ADD places integer NOT NULL DEFAULT 0 CHECK (places >= 0),      -- guests that may be at work at the same time
    ADD ready integer NOT NULL DEFAULT 0 CHECK (ready >= 0),        -- guests that are kept ready
    ADD running integer NOT NULL DEFAULT 0 CHECK (running >= 0),    -- guests that somebody has
    ADD heard_at timestamptz;                                       -- when it last said so; null: never

-- Whoever watches is told of products, hosts and services too; that one was seen again is no news.
CREATE FUNCTION notify_other_change() RETURNS trigger LANGUAGE plpgsql SET search_path = cleanroom, pg_catalog AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND to_jsonb(NEW) - TG_ARGV[0]::text[] = to_jsonb(OLD) - TG_ARGV[0]::text[] THEN
        RETURN NULL;
    END IF;
    PERFORM pg_notify('cleanroom_change', TG_TABLE_NAME);
    RETURN NULL;
END $$;
CREATE TRIGGER changed AFTER INSERT OR UPDATE ON product
    FOR EACH ROW EXECUTE FUNCTION notify_other_change('{watched_at}');
CREATE TRIGGER changed AFTER INSERT OR UPDATE ON host
    FOR EACH ROW EXECUTE FUNCTION notify_other_change('{seen_at,heard_at}');
CREATE TRIGGER changed AFTER INSERT OR UPDATE ON service
    FOR EACH ROW EXECUTE FUNCTION notify_other_change('{seen_at}');

-- The master is woken when a host takes work again, or is not to take any.
CREATE FUNCTION notify_host() RETURNS trigger LANGUAGE plpgsql SET search_path = cleanroom, pg_catalog AS $$
BEGIN
    PERFORM pg_notify('cleanroom_host', NEW.name);
    RETURN NULL;
END $$;
CREATE TRIGGER state_changed AFTER UPDATE OF state ON host
    FOR EACH ROW WHEN (NEW.state <> OLD.state) EXECUTE FUNCTION notify_host();
CREATE INDEX attempt_worker ON attempt (worker) WHERE finished_at IS NULL;

-- What an image holds is what phases that began with it have in common.
CREATE INDEX phase_of_image ON phase (image_digest, id) WHERE package_state IS NOT NULL;

-- People change their passwords in the web status, which may make none otherwise: only that of the account whose session
-- it has, only where there was one, and never without a word in the audit log.
CREATE FUNCTION change_password(session_secret text, fresh text, from_address text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = cleanroom, pg_temp AS $$
DECLARE
    changed account;
BEGIN
    UPDATE account SET password = fresh
      FROM session
     WHERE session.secret = session_secret AND account.id = session.account
       AND account.password IS NOT NULL AND account.removed_at IS NULL
    RETURNING account.* INTO changed;
    IF changed.id IS NULL THEN
        RETURN NULL;
    END IF;
    DELETE FROM session WHERE account = changed.id;
    INSERT INTO audit (actor, action, subject, detail, written_by)
    VALUES (changed.name, 'account password', changed.name, jsonb_build_object('address', from_address), session_user);
    RETURN changed.id;
END $$;
REVOKE ALL ON FUNCTION change_password FROM PUBLIC;
