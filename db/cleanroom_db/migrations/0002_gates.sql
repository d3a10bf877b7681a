-- Comparisons of builds with earlier ones, and the gates of a release: what was demanded, what held, what was waived.

SET LOCAL search_path = cleanroom, pg_catalog;

CREATE TYPE comparison_base AS ENUM ('published', 'previous');
CREATE TYPE gate_state AS ENUM ('holds', 'fails', 'waived');

-- A case is found in a phase by its name. Names may be longer than an index takes, so their digest is what is kept.
CREATE INDEX test_case_name ON test_case (phase_id, (md5(name)::uuid));
DROP INDEX test_case_phase;
CREATE INDEX release_of_channel ON release (product, channel, id DESC);

ALTER TABLE release
    ADD gates text[] NOT NULL DEFAULT '{builds}' CHECK ('builds' = ANY(gates)),
    ADD approved_by text,                           -- null: nobody approved it
    ADD approved_at timestamptz,
    ADD CHECK ((approved_by IS NULL) = (approved_at IS NULL));
UPDATE release SET gates = ARRAY(SELECT jsonb_array_elements_text(recipe -> 'gates'))
 WHERE jsonb_typeof(recipe -> 'gates') = 'array' AND recipe -> 'gates' ? 'builds';
-- What waited for approval was held by a reason; now the gate says so.
UPDATE release SET hold_reason = NULL WHERE hold_reason = 'waits for approval' AND 'approval' = ANY(gates);

-- What became of an attempt's tests and phases since another release; written once, when the attempt ends.
CREATE TABLE comparison (
    attempt_id bigint NOT NULL REFERENCES attempt,
    base comparison_base NOT NULL,
    against bigint REFERENCES release,              -- null: there is no such release
    regressed integer NOT NULL DEFAULT 0 CHECK (regressed >= 0),
    fixed integer NOT NULL DEFAULT 0 CHECK (fixed >= 0),
    still_failing integer NOT NULL DEFAULT 0 CHECK (still_failing >= 0),
    flaky integer NOT NULL DEFAULT 0 CHECK (flaky >= 0),
    new integer NOT NULL DEFAULT 0 CHECK (new >= 0),
    gone integer NOT NULL DEFAULT 0 CHECK (gone >= 0),
    slower integer NOT NULL DEFAULT 0 CHECK (slower >= 0),
    same integer NOT NULL DEFAULT 0 CHECK (same >= 0),
    phases text[] NOT NULL DEFAULT '{}',            -- those that passed then and failed now
    names jsonb NOT NULL DEFAULT '{}',              -- of each kind the first few: {"regressed": ["regress autopkgtest a"]}
    compared_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (attempt_id, base)
);

CREATE TABLE gate_result (
    release_id bigint NOT NULL REFERENCES release,
    gate text NOT NULL,
    target text,                                    -- null: it is about the whole release
    state gate_state NOT NULL,
    why text NOT NULL,
    evaluated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX gate_result_once ON gate_result (release_id, gate, coalesce(target, ''));

CREATE TABLE gate_waiver (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    release_id bigint NOT NULL REFERENCES release,
    gate text NOT NULL,
    actor text NOT NULL CHECK (actor <> ''),
    reason text NOT NULL CHECK (reason ~ '\S'),
    waived_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    CHECK (expires_at > waived_at)
);
CREATE INDEX gate_waiver_release ON gate_waiver (release_id, id);
