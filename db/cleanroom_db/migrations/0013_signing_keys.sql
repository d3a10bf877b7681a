-- The keys that sign the repository, over time; and what is asked of the publisher about them.

SET LOCAL search_path = cleanroom, pg_catalog;

ALTER TYPE request_kind ADD VALUE 'rotate-key';
ALTER TYPE request_kind ADD VALUE 'retire-key';
ALTER TYPE request_kind ADD VALUE 'extend-key';
ALTER TABLE repository_request ADD parameters jsonb NOT NULL DEFAULT '{}';

CREATE TABLE signing_key (
    fingerprint text PRIMARY KEY CHECK (fingerprint ~ '^[0-9A-F]{40}$'),
    user_id text NOT NULL,
    public_key text NOT NULL CHECK (public_key <> ''),      -- in ASCII armour
    made_at timestamptz NOT NULL,
    expires_at timestamptz,                         -- null: never
    signs_since timestamptz NOT NULL DEFAULT now(),
    retires_at timestamptz,                         -- when its overlap with the next key ends; null: there is none
    retired_at timestamptz,                         -- null: it signs
    why text NOT NULL DEFAULT ''                    -- of its retirement
);
