-- What says of itself when and where it was made cannot be the same twice: .buildinfo, and .changes that lists it.

-- name: missing
-- The builds of a release that ended well and were not built again yet, with the image that they started from.
SELECT build.target, build.phases, attempt.id AS attempt, phase.image_digest
  FROM cleanroom.build
  JOIN cleanroom.attempt ON attempt.build_id = build.id
  JOIN cleanroom.phase ON phase.attempt_id = attempt.id AND phase.name = 'build' AND phase.replay = 0
 WHERE build.release_id = %(release)s AND attempt.outcome IN ('passed', 'flaky')
   AND attempt.number = (SELECT max(number) FROM cleanroom.attempt AS latest WHERE latest.build_id = build.id)
   AND EXISTS (SELECT 1 FROM cleanroom.artifact WHERE artifact.attempt_id = attempt.id)
   AND NOT EXISTS (SELECT 1 FROM cleanroom.reproduction WHERE reproduction.attempt_id = attempt.id)
 ORDER BY build.id

-- name: insert
INSERT INTO cleanroom.reproduction (attempt_id, trial_id) VALUES (%(attempt)s, %(trial)s)

-- name: originals
-- The files of the release whose bytes are other ones in an attempt of the trial, or that it did not make.
SELECT original.file, original.sha256
  FROM cleanroom.reproduction
  JOIN cleanroom.artifact AS original ON original.attempt_id = reproduction.attempt_id
  LEFT JOIN cleanroom.artifact AS again ON again.attempt_id = %(attempt)s AND again.file = original.file
 WHERE reproduction.trial_id = %(trial)s AND original.kind NOT IN ('buildinfo', 'changes')
   AND original.sha256 IS DISTINCT FROM again.sha256
 ORDER BY original.file

-- name: record
WITH again AS (
    SELECT attempt.id FROM cleanroom.attempt JOIN cleanroom.build ON build.id = attempt.build_id
     WHERE build.trial_id = %(trial)s ORDER BY attempt.number DESC LIMIT 1
), compared AS (
    UPDATE cleanroom.reproduction SET compared_at = now()
     WHERE trial_id = %(trial)s AND EXISTS (SELECT 1 FROM cleanroom.artifact WHERE attempt_id = (SELECT id FROM again))
    RETURNING attempt_id
)
INSERT INTO cleanroom.reproduced_artifact (attempt_id, file, sha256, again_sha256)
SELECT compared.attempt_id, file, max(one.sha256) FILTER (WHERE NOT one.again), max(one.sha256) FILTER (WHERE one.again)
  FROM compared
 CROSS JOIN LATERAL (
    SELECT file, sha256, attempt_id <> compared.attempt_id AS again FROM cleanroom.artifact
     WHERE attempt_id IN (compared.attempt_id, (SELECT id FROM again)) AND kind NOT IN ('buildinfo', 'changes')
 ) AS one
 GROUP BY compared.attempt_id, file

-- name: of_attempts (prepared)
SELECT reproduction.*, trial.outcome, trial.why, trial.finished_at, trial.created_at,
       (SELECT step.log_sha256 FROM cleanroom.build
          JOIN cleanroom.attempt AS second ON second.build_id = build.id
          JOIN cleanroom.phase ON phase.attempt_id = second.id AND phase.name = %(phase)s
          JOIN cleanroom.step ON step.phase_id = phase.id
         WHERE build.trial_id = trial.id ORDER BY second.number DESC, step.position DESC LIMIT 1) AS report
  FROM cleanroom.reproduction JOIN cleanroom.trial ON trial.id = reproduction.trial_id
 WHERE reproduction.attempt_id = ANY(%(attempts)s)

-- name: artifacts (prepared)
SELECT * FROM cleanroom.reproduced_artifact WHERE attempt_id = ANY(%(attempts)s) ORDER BY attempt_id, file
