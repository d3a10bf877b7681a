-- What is kept no more, and whether the disk has room for anything new.

SET LOCAL search_path = cleanroom, pg_catalog;

-- The row stays when its file goes: what was said and built is history, only the bytes are not kept for ever.
ALTER TABLE step ADD log_removed_at timestamptz;        -- null: the log is kept
ALTER TABLE artifact ADD removed_at timestamptz;        -- null: the file is kept
CREATE INDEX step_log ON step (log_sha256) WHERE log_sha256 IS NOT NULL AND log_removed_at IS NULL;
CREATE INDEX provenance_statement ON provenance (statement_sha256);
CREATE INDEX provenance_bill ON provenance (bill_sha256);

-- The file system of the master's state, as it last looked.
CREATE TABLE disk (
    place text PRIMARY KEY,
    free bigint NOT NULL CHECK (free >= 0),
    total bigint NOT NULL CHECK (total >= 0),
    least bigint NOT NULL CHECK (least >= 0),           -- with less free nothing new is begun
    low_since timestamptz,                              -- null: there is room
    seen_at timestamptz NOT NULL DEFAULT now()
);
