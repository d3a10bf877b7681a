-- A block here writes only while the lease is held: `held` is empty otherwise, and stays true until the
-- transaction's end because its row is locked.

-- name: start
WITH held AS (
    SELECT id FROM cleanroom.attempt
     WHERE id = %(attempt)s AND lease_owner = %(owner)s AND finished_at IS NULL FOR SHARE
)
INSERT INTO cleanroom.phase (attempt_id, position, name)
SELECT held.id, %(position)s, %(name)s FROM held
ON CONFLICT (attempt_id, name) DO UPDATE SET position = excluded.position
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

-- name: finish
WITH held AS (
    SELECT id FROM cleanroom.attempt
     WHERE id = %(attempt)s AND lease_owner = %(owner)s AND finished_at IS NULL FOR SHARE
)
UPDATE cleanroom.phase
   SET outcome = %(outcome)s, why = %(why)s, seconds = %(seconds)s, command_seconds = %(command_seconds)s,
       finished_at = now()
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
       tests_skipped = tests_skipped + %(skipped)s
  FROM held WHERE phase.attempt_id = held.id AND phase.id = %(phase)s

-- name: copy_tests
COPY cleanroom.test_case (phase_id, step, name, outcome, seconds, message, line) FROM STDIN

-- name: hold_lease
SELECT id FROM cleanroom.attempt
 WHERE id = %(attempt)s AND lease_owner = %(owner)s AND finished_at IS NULL FOR SHARE

-- name: insert_artifacts
INSERT INTO cleanroom.artifact (attempt_id, phase, file, sha256, size, kind, package, version, architecture)
VALUES %s
ON CONFLICT DO NOTHING

-- name: artifacts
SELECT * FROM cleanroom.artifact WHERE attempt_id = %(attempt)s ORDER BY file

-- name: without_log
SELECT step.id, phase.attempt_id, phase.name AS phase, step.name AS step
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
