-- Who tells whom: webhooks that come in, changes of state, and the messages about them that go out.

SET LOCAL search_path = cleanroom, pg_catalog;

CREATE TYPE forge AS ENUM ('github', 'gitlab', 'gitea');
CREATE TYPE notification_event AS ENUM ('regressed', 'fixed', 'published', 'rolled_back', 'withdrawn', 'status');
CREATE TYPE notification_state AS ENUM ('pending', 'delivered', 'failed', 'superseded');

-- What forges told. A webhook is never believed: all that comes of one is a look at the repository.
CREATE TABLE webhook_delivery (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    forge forge NOT NULL,
    delivery text NOT NULL CHECK (length(delivery) BETWEEN 1 AND 200),
    digest sha256 NOT NULL,                         -- of what was signed: who sends it again makes no second row
    event text NOT NULL CHECK (length(event) <= 100),
    product text NOT NULL REFERENCES product,
    received_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (forge, delivery),
    UNIQUE (forge, digest)
);
CREATE INDEX webhook_delivery_age ON webhook_delivery (received_at);

-- Repositories that the ref watch is to look at before their turn.
CREATE TABLE look_wish (
    product text PRIMARY KEY REFERENCES product,
    number bigint NOT NULL DEFAULT 1,               -- grows with every wish, so that none is lost during a look
    wished_at timestamptz NOT NULL DEFAULT now()
);

-- The outbox: each change of a release's state, and each generation that consumers saw, written with the change.
CREATE TABLE state_change (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release_id bigint REFERENCES release,
    state release_state,
    why text NOT NULL DEFAULT '',
    generation bigint REFERENCES generation,
    at timestamptz NOT NULL DEFAULT now(),
    told_at timestamptz,                            -- null: it was not looked yet who is to be told
    CHECK ((release_id IS NULL) = (state IS NULL)),
    CHECK ((release_id IS NULL) <> (generation IS NULL))
);
CREATE INDEX state_change_untold ON state_change (id) WHERE told_at IS NULL;
CREATE INDEX state_change_release ON state_change (release_id, id) WHERE release_id IS NOT NULL;

-- Whether what a product last brought into a channel had regressed: only when that changes is there a message.
CREATE TABLE standing (
    product text NOT NULL REFERENCES product,
    channel text NOT NULL,
    regressed boolean NOT NULL,
    release_id bigint NOT NULL REFERENCES release,
    PRIMARY KEY (product, channel)
);

-- One message for one endpoint. Its key is told with every try, so that a receiver knows it again.
CREATE TABLE notification (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    change_id bigint NOT NULL REFERENCES state_change,
    endpoint text NOT NULL,
    event notification_event NOT NULL,
    release_id bigint REFERENCES release,           -- null: it is about more than one
    content jsonb NOT NULL,
    state notification_state NOT NULL DEFAULT 'pending',
    tries integer NOT NULL DEFAULT 0 CHECK (tries >= 0),
    not_before timestamptz NOT NULL DEFAULT now(),
    lease_owner text,
    lease_expires_at timestamptz,
    problem text NOT NULL DEFAULT '',               -- why the last try did not succeed
    created_at timestamptz NOT NULL DEFAULT now(),
    settled_at timestamptz,
    CHECK ((state = 'pending') = (settled_at IS NULL)),
    CHECK ((lease_owner IS NULL) = (lease_expires_at IS NULL)),
    CHECK (lease_owner IS NULL OR state = 'pending')
);
CREATE UNIQUE INDEX notification_once ON notification (change_id, endpoint, event, coalesce(release_id, 0));
CREATE INDEX notification_due ON notification (not_before, id) WHERE state = 'pending';

-- These write for whoever changed the state, who may not do that himself.
CREATE FUNCTION note_release_state() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = cleanroom, pg_catalog AS $$
BEGIN
    INSERT INTO state_change (release_id, state, why) VALUES (NEW.id, NEW.state, NEW.why);
    PERFORM pg_notify('cleanroom_notification', '');
    RETURN NULL;
END $$;
CREATE TRIGGER state_begun AFTER INSERT ON release FOR EACH ROW EXECUTE FUNCTION note_release_state();
CREATE TRIGGER state_changed AFTER UPDATE OF state ON release
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION note_release_state();

CREATE FUNCTION note_generation() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = cleanroom, pg_catalog AS $$
BEGIN
    INSERT INTO state_change (generation) VALUES (NEW.number);
    PERFORM pg_notify('cleanroom_notification', '');
    RETURN NULL;
END $$;
CREATE TRIGGER noted AFTER UPDATE OF switched_at ON generation
    FOR EACH ROW WHEN (OLD.switched_at IS NULL AND NEW.switched_at IS NOT NULL) EXECUTE FUNCTION note_generation();

CREATE FUNCTION notify_wish() RETURNS trigger LANGUAGE plpgsql SET search_path = cleanroom, pg_catalog AS $$
BEGIN
    PERFORM pg_notify('cleanroom_look', '');
    RETURN NULL;
END $$;
CREATE TRIGGER wished AFTER INSERT OR UPDATE ON look_wish FOR EACH STATEMENT EXECUTE FUNCTION notify_wish();
