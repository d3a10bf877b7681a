-- Reproductions: builds that are made twice, in other circumstances, and compared file by file.

SET LOCAL search_path = cleanroom, pg_catalog;

CREATE TABLE reproduction (
    attempt_id bigint PRIMARY KEY REFERENCES attempt,       -- of the release
    trial_id bigint NOT NULL UNIQUE REFERENCES trial,
    compared_at timestamptz                                 -- null: the trial goes on, or made nothing to compare
);

CREATE TABLE reproduced_artifact (
    attempt_id bigint NOT NULL REFERENCES reproduction,
    file file_name NOT NULL,
    sha256 sha256,                                  -- null: only the second build made it
    again_sha256 sha256,                            -- null: only the first build made it
    PRIMARY KEY (attempt_id, file),
    CHECK (num_nonnulls(sha256, again_sha256) > 0)
);
