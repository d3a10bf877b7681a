-- A block here writes only while the lease is held: `held` is empty otherwise, and stays true until the
-- transaction's end because its row is locked.

-- name: start
WITH held AS (
    SELECT id FROM cleanroom.attempt
     WHERE id = %(attempt)s AND lease_owner = %(owner)s AND finished_at IS NULL FOR SHARE
)
INSERT INTO cleanroom.phase (attempt_id, position, name, replay, alone)
SELECT held.id, %(position)s, %(name)s, %(replay)s, %(alone)s FROM held
ON CONFLICT (attempt_id, name, replay) DO UPDATE SET position = excluded.position
RETURNING id

-- name: reset
WITH held AS (
    SELECT id FROM cleanroom.attempt
     WHERE id = %(attempt)s AND lease_owner = %(owner)s AND finished_at IS NULL FOR SHARE
)
UPDATE cleanroom.phase
   SET image = %(image)s, image_digest = %(image_digest)s, isolation = %(isolation)s, network = %(network)s,
       reset_method = %(method)s, reset_seconds = %(seconds)s
  FROM held WHERE phase.attempt_id = held.id AND phase.id = %(phase)s

-- name: installed
WITH held AS (
    SELECT id FROM cleanroom.attempt
     WHERE id = %(attempt)s AND lease_owner = %(owner)s AND finished_at IS NULL FOR SHARE
)
UPDATE cleanroom.phase SET installed_sha256 = %(sha256)s
  FROM held WHERE phase.attempt_id = held.id AND phase.id = %(phase)s

-- name: settle
-- What the replays say of a phase.
WITH held AS (
    SELECT id FROM cleanroom.attempt
     WHERE id = %(attempt)s AND lease_owner = %(owner)s AND finished_at IS NULL FOR SHARE
)
UPDATE cleanroom.phase
   SET outcome = %(outcome)s, why = %(why)s, runs = %(runs)s, failures = %(failures)s
  FROM held WHERE phase.attempt_id = held.id AND phase.id = %(phase)s

-- name: rate_cases
-- In how many of the runs that count each case ran, and failed. Of several cases of one name the worst counts. A case
-- that the phase itself did not come to is added to it.
WITH run AS (
    SELECT again.id, again.replay FROM cleanroom.phase AS first
      JOIN cleanroom.phase AS again ON again.attempt_id = first.attempt_id AND again.name = first.name
     WHERE first.id = %(phase)s AND (again.replay = 0 OR again.outcome IN ('passed', 'failed'))
), known AS (
    SELECT test_case.step, test_case.name, min(run.replay) AS first, max(test_case.seconds) AS seconds,
           count(DISTINCT run.id) AS runs,
           count(DISTINCT run.id) FILTER (WHERE test_case.outcome = 'failed') AS failures
      FROM run JOIN cleanroom.test_case ON test_case.phase_id = run.id
     WHERE test_case.outcome IN ('passed', 'flaky', 'failed')
     GROUP BY test_case.step, test_case.name
), added AS (
    INSERT INTO cleanroom.test_case (phase_id, step, name, outcome, seconds, runs, failures)
    SELECT %(phase)s, step, name,
           CASE WHEN failures = 0 THEN 'passed' WHEN failures = runs THEN 'failed' ELSE 'flaky' END::cleanroom.outcome,
           seconds, runs, failures
      FROM known WHERE first > 0 AND NOT EXISTS (
           SELECT 1 FROM cleanroom.test_case AS there
            WHERE there.phase_id = %(phase)s AND md5(there.name)::uuid = md5(known.name)::uuid
              AND there.name = known.name AND there.step = known.step)
)
UPDATE cleanroom.test_case
   SET runs = known.runs, failures = known.failures,
       outcome = CASE WHEN known.failures < known.runs THEN 'flaky' ELSE test_case.outcome END
  FROM known
 WHERE test_case.phase_id = %(phase)s AND test_case.step = known.step AND test_case.name = known.name
   AND known.failures > 0 AND test_case.outcome IN ('passed', 'failed')

-- name: recount_tests
UPDATE cleanroom.phase
   SET tests_passed = counted.passed, tests_failed = counted.failed, tests_skipped = counted.skipped,
       tests_flaky = counted.flaky
  FROM (SELECT count(*) FILTER (WHERE outcome IN ('passed', 'flaky')) AS passed,
               count(*) FILTER (WHERE outcome = 'failed') AS failed,
               count(*) FILTER (WHERE outcome = 'skipped') AS skipped, count(*) FILTER (WHERE outcome = 'flaky') AS flaky
          FROM cleanroom.test_case WHERE phase_id = %(phase)s) AS counted
 WHERE phase.id = %(phase)s

-- name: settle_step
UPDATE cleanroom.step SET outcome = %(outcome)s, why = %(why)s
 WHERE phase_id = %(phase)s AND name = %(step)s AND outcome = 'failed'

-- name: finish
WITH held AS (
    SELECT id FROM cleanroom.attempt
     WHERE id = %(attempt)s AND lease_owner = %(owner)s AND finished_at IS NULL FOR SHARE
)
UPDATE cleanroom.phase
   SET outcome = %(outcome)s, why = %(why)s, seconds = %(seconds)s, command_seconds = %(command_seconds)s,
       guest_went_off = %(guest_went_off)s, finished_at = now()
  FROM held WHERE phase.attempt_id = held.id AND phase.id = %(phase)s

-- name: start_step
WITH held AS (
    SELECT phase.id FROM cleanroom.attempt JOIN cleanroom.phase ON phase.attempt_id = attempt.id
     WHERE attempt.id = %(attempt)s AND lease_owner = %(owner)s AND attempt.finished_at IS NULL
       AND phase.id = %(phase)s FOR SHARE OF attempt
)
INSERT INTO cleanroom.step (phase_id, position, name)
SELECT held.id, %(position)s, %(name)s FROM held
ON CONFLICT (phase_id, position) DO UPDATE SET name = excluded.name
RETURNING id

-- name: finish_step
WITH held AS (
    SELECT phase.id FROM cleanroom.attempt JOIN cleanroom.phase ON phase.attempt_id = attempt.id
     WHERE attempt.id = %(attempt)s AND lease_owner = %(owner)s AND attempt.finished_at IS NULL
       FOR SHARE OF attempt
)
UPDATE cleanroom.step
   SET outcome = %(outcome)s, exit_status = %(exit_status)s, why = %(why)s, seconds = %(seconds)s,
       log_sha256 = %(log_sha256)s, log_size = %(log_size)s, log_truncated = %(log_truncated)s, remark = %(remark)s
  FROM held WHERE step.phase_id = held.id AND step.id = %(step)s

-- name: count_tests
WITH held AS (
    SELECT id FROM cleanroom.attempt
     WHERE id = %(attempt)s AND lease_owner = %(owner)s AND finished_at IS NULL FOR SHARE
)
UPDATE cleanroom.phase
   SET tests_passed = tests_passed + %(passed)s, tests_failed = tests_failed + %(failed)s,
       tests_skipped = tests_skipped + %(skipped)s, tests_flaky = tests_flaky + %(flaky)s
  FROM held WHERE phase.attempt_id = held.id AND phase.id = %(phase)s

-- name: copy_tests
COPY cleanroom.test_case (phase_id, step, name, outcome, seconds, message, line) FROM STDIN

-- name: hold_lease
SELECT id FROM cleanroom.attempt
 WHERE id = %(attempt)s AND lease_owner = %(owner)s AND finished_at IS NULL FOR SHARE

-- name: insert_artifacts
INSERT INTO cleanroom.artifact (attempt_id, phase, replay, file, sha256, size, kind, package, version, architecture)
VALUES %s
ON CONFLICT DO NOTHING

-- name: artifacts
SELECT * FROM cleanroom.artifact WHERE attempt_id = %(attempt)s ORDER BY file

-- name: without_log
SELECT step.id, phase.attempt_id, phase.name AS phase, phase.replay, step.name AS step
  FROM cleanroom.step JOIN cleanroom.phase ON phase.id = step.phase_id
 WHERE phase.attempt_id = ANY(%(attempts)s) AND step.log_sha256 IS NULL

-- name: attach_log
UPDATE cleanroom.step SET log_sha256 = %(sha256)s, log_size = %(size)s
 WHERE id = %(step)s AND log_sha256 IS NULL

-- name: insert_package_state
INSERT INTO cleanroom.package_state (digest, packages) VALUES (%(digest)s, %(packages)s) ON CONFLICT DO NOTHING

-- name: set_package_state
WITH held AS (
    SELECT id FROM cleanroom.attempt
     WHERE id = %(attempt)s AND lease_owner = %(owner)s AND finished_at IS NULL FOR SHARE
)
UPDATE cleanroom.phase SET package_state = %(digest)s
  FROM held WHERE phase.attempt_id = held.id AND phase.id = %(phase)s
