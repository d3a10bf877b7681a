-- Trials: builds that are made to learn something, and of which nothing is ever published.

SET LOCAL search_path = cleanroom, pg_catalog;

CREATE TYPE trial_purpose AS ENUM ('reproduction', 'dependent', 'nightly', 'bisection', 'union');
ALTER TYPE gate_state ADD VALUE 'waits';

CREATE TABLE trial (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    purpose trial_purpose NOT NULL,
    product text NOT NULL REFERENCES product,
    ref ref_name NOT NULL,
    commit commit_id NOT NULL,
    kind ref_kind NOT NULL,
    recipe jsonb NOT NULL,
    channel text NOT NULL CHECK (channel ~ '^[a-z][a-z0-9-]{0,31}$'),
    conditions jsonb NOT NULL DEFAULT '{}',         -- what its guests start from that is otherwise
    subject bigint REFERENCES release,              -- the release that waits for it; null: none does
    requested_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    outcome outcome,                                -- null: not finished
    why text NOT NULL DEFAULT '',
    CHECK ((outcome IS NULL) = (finished_at IS NULL))
);
CREATE INDEX trial_subject ON trial (subject, purpose) WHERE subject IS NOT NULL;
CREATE INDEX trial_product ON trial (product, purpose, id DESC);
CREATE INDEX trial_open ON trial (id) WHERE finished_at IS NULL;

-- A build is of a release or of a trial.
ALTER TABLE build
    ALTER release_id DROP NOT NULL,
    ADD trial_id bigint REFERENCES trial,
    ADD UNIQUE (trial_id, target),
    ADD CHECK (num_nonnulls(release_id, trial_id) = 1);

-- What is due is worked on in this order, the smallest first: releases, then trials that a release or a person waits
-- for, then those that nobody waits for.
ALTER TABLE attempt ADD priority smallint NOT NULL DEFAULT 0;
DROP INDEX attempt_due;
CREATE INDEX attempt_due ON attempt (priority, not_before, id) WHERE finished_at IS NULL AND lease_owner IS NULL;

CREATE TRIGGER updated AFTER UPDATE ON trial REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION notify_first_id('cleanroom_trial');

-- A trial's attempts are no news of a release.
CREATE OR REPLACE FUNCTION notify_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path = cleanroom, pg_catalog AS $$
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
    IF changed IS NOT NULL THEN
        PERFORM pg_notify('cleanroom_change', changed::text);
    END IF;
    RETURN NULL;
END $$;
