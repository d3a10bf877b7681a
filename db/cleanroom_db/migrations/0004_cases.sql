-- Where a test case stands in its step's log, and what is not among a step's test cases.

SET LOCAL search_path = cleanroom, pg_catalog;

ALTER TABLE test_case ADD line integer CHECK (line > 0);    -- null: not recognised in the log
ALTER TABLE step ADD remark text NOT NULL DEFAULT '';

-- The cases of a phase that people are shown first: few among many.
CREATE INDEX test_case_failing ON test_case (phase_id, id) WHERE outcome NOT IN ('passed', 'skipped');
