-- name: find (prepared)
SELECT step.id, step.name, step.position, step.outcome, step.exit_status, step.why, step.started_at, step.seconds,
       step.log_sha256, step.log_size, step.log_truncated, step.log_removed_at, step.remark,
       phase.id AS phase_id, phase.name AS phase, phase.replay, attempt.id AS attempt, attempt.number, build.target,
       coalesce(release.product, trial.product) AS product, coalesce(release.ref, trial.ref) AS ref,
       trial.id AS trial, trial.purpose
  FROM cleanroom.step
  JOIN cleanroom.phase ON phase.id = step.phase_id
  JOIN cleanroom.attempt ON attempt.id = phase.attempt_id
  JOIN cleanroom.build ON build.id = attempt.build_id
  LEFT JOIN cleanroom.release ON release.id = build.release_id
  LEFT JOIN cleanroom.trial ON trial.id = build.trial_id
 WHERE step.id = %(step)s

-- name: failing (prepared)
-- The cases of a step that did not pass.
SELECT name, outcome, message, line FROM cleanroom.test_case
 WHERE phase_id = %(phase)s AND step = %(step)s AND outcome NOT IN ('passed', 'skipped')
 ORDER BY id LIMIT %(limit)s

-- name: beside (prepared)
-- All steps of the same attempt, in their order.
SELECT step.id, step.name, step.outcome, phase.name AS phase, phase.replay
  FROM cleanroom.step JOIN cleanroom.phase ON phase.id = step.phase_id
 WHERE phase.attempt_id = %(attempt)s
 ORDER BY phase.position, phase.replay, step.position LIMIT %(limit)s
