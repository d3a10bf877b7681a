-- What was signed about published packages: how each was built, and what it consists of.

SET LOCAL search_path = cleanroom, pg_catalog;

CREATE TABLE provenance (
    sha256 sha256 PRIMARY KEY,                      -- of the package as published
    attempt_id bigint NOT NULL REFERENCES attempt,  -- which built it
    statement_sha256 sha256 NOT NULL,               -- of the file with the signed statement
    bill_sha256 sha256 NOT NULL,                    -- of the file with the bill of materials
    signed_by text[] NOT NULL CHECK (cardinality(signed_by) > 0),   -- fingerprints
    signed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX provenance_attempt ON provenance (attempt_id);
CREATE INDEX channel_package_content ON channel_package (sha256);
