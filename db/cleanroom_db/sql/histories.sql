-- name: runs (prepared)
-- One case in the latest releases of a product: of each build the last attempt that says something about the product.
WITH recent AS (
    SELECT id, ref, commit, version, channel, created_at FROM cleanroom.release
     WHERE product = %(product)s AND (%(channel)s::text IS NULL OR channel = %(channel)s)
     ORDER BY id DESC LIMIT %(releases)s
), run AS (
    SELECT DISTINCT ON (build.id) recent.*, build.target, attempt.id AS attempt, attempt.finished_at
      FROM recent
      JOIN cleanroom.build ON build.release_id = recent.id
      JOIN cleanroom.attempt ON attempt.build_id = build.id
     WHERE attempt.outcome IN ('passed', 'failed', 'regressed', 'flaky', 'skipped')
     ORDER BY build.id, attempt.number DESC
)
SELECT run.ref, run.commit, run.version, run.channel, run.finished_at, run.target, phase.name AS phase, test_case.step,
       test_case.outcome, test_case.seconds, test_case.message, test_case.line, test_case.runs, test_case.failures
  FROM run
  JOIN cleanroom.phase ON phase.attempt_id = run.attempt AND phase.replay = 0
  JOIN cleanroom.test_case ON test_case.phase_id = phase.id AND md5(test_case.name)::uuid = md5(%(name)s)::uuid
       AND test_case.name = %(name)s
 ORDER BY run.target COLLATE "C", phase.position, test_case.step COLLATE "C", run.id DESC,
          array_position('{failed,regressed,flaky,passed}'::cleanroom.outcome[], test_case.outcome) NULLS LAST
