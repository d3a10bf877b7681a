-- Replays: phases whose tests failed are run again from the same state, to know whether they always fail.

SET LOCAL search_path = cleanroom, pg_catalog;

ALTER TABLE phase
    ADD replay integer NOT NULL DEFAULT 0 CHECK (replay >= 0),      -- 0: the phase itself; else it repeats that one
    ADD alone boolean NOT NULL DEFAULT false,       -- a replay of the failed tests only
    ADD installed_sha256 sha256,                    -- of the packages before its first test; null: not listed
    ADD runs integer CHECK (runs > 0),              -- runs that count, the first included; null: none was repeated
    ADD failures integer CHECK (failures BETWEEN 0 AND runs),
    ADD tests_flaky integer NOT NULL DEFAULT 0 CHECK (tests_flaky >= 0),    -- of those that passed
    DROP CONSTRAINT phase_attempt_id_name_key,
    ADD UNIQUE (attempt_id, name, replay),
    ADD CHECK (replay > 0 OR NOT alone),
    ADD CHECK ((runs IS NULL) = (failures IS NULL));

-- Of the phase itself only: in how many of the runs that count a case ran, and failed.
ALTER TABLE test_case
    ADD runs integer CHECK (runs > 0),
    ADD failures integer CHECK (failures BETWEEN 0 AND runs),
    ADD CHECK ((runs IS NULL) = (failures IS NULL));

-- Which run of its phase made it.
ALTER TABLE artifact ADD replay integer NOT NULL DEFAULT 0 CHECK (replay >= 0);
