-- Who may do what through the web status: accounts, their roles, sessions and tokens; the audit log knows refusals.

SET LOCAL search_path = cleanroom, pg_catalog;

CREATE TYPE account_role AS ENUM ('reader', 'developer', 'manager', 'administrator');

CREATE TABLE account (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9._@+-]{0,63}$'),
    password text CHECK (password LIKE '$argon2id$%'),     -- null: it has none
    issuer text,                                -- of OpenID Connect; null: it does not sign in by that
    subject text CHECK (length(subject) BETWEEN 1 AND 255),
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    removed_at timestamptz,
    UNIQUE (issuer, subject),
    CHECK ((issuer IS NULL) = (subject IS NULL)),
    CHECK (removed_at IS NULL OR password IS NULL)
);

-- A role counts for one product, or for all (null).
CREATE TABLE account_grant (
    account bigint NOT NULL REFERENCES account,
    role account_role NOT NULL,
    product text REFERENCES product,
    granted_at timestamptz NOT NULL DEFAULT now(),
    granted_by text NOT NULL
);
CREATE UNIQUE INDEX account_grant_once ON account_grant (account, role, coalesce(product, ''));
-- What the web status may grant by itself stands in grants.sql.
ALTER TABLE account_grant ENABLE ROW LEVEL SECURITY;

-- Secrets of sessions and tokens are random and long: a plain SHA-256 of them tells nothing.
CREATE TABLE session (
    secret text PRIMARY KEY CHECK (secret ~ '^[0-9a-f]{64}$'),
    account bigint NOT NULL REFERENCES account,
    address text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX session_account ON session (account);
CREATE INDEX session_seen ON session (seen_at);

CREATE TABLE api_token (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account bigint NOT NULL REFERENCES account,
    name text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
    secret text NOT NULL UNIQUE CHECK (secret ~ '^[0-9a-f]{64}$'),
    role account_role NOT NULL,                 -- it may do at most what this role may,
    product text REFERENCES product,            -- and only for this product (null: for all)
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    revoked_at timestamptz
);
CREATE UNIQUE INDEX api_token_name ON api_token (account, name) WHERE revoked_at IS NULL;

-- Attempts to sign in that did not succeed lately, for the limits on them.
CREATE TABLE sign_in_failure (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    account text NOT NULL,
    address text NOT NULL
);
CREATE INDEX sign_in_failure_account ON sign_in_failure (account, at);
CREATE INDEX sign_in_failure_address ON sign_in_failure (address, at);
CREATE INDEX sign_in_failure_at ON sign_in_failure (at);

-- Whether it was done, and as which role of the database it was written down: the web status cannot write as another.
ALTER TABLE audit ADD allowed boolean NOT NULL DEFAULT true, ADD written_by text;
ALTER TABLE audit ALTER written_by SET DEFAULT current_user;
