-- name: begin
INSERT INTO cleanroom.night (channel, date, requested_by) VALUES (%(channel)s, %(date)s, %(requested_by)s)
ON CONFLICT DO NOTHING
RETURNING id

-- name: set_trials
UPDATE cleanroom.night SET trials = %(trials)s WHERE id = %(id)s

-- name: latest
SELECT max(date) FROM cleanroom.night WHERE channel = %(channel)s

-- name: history
SELECT * FROM cleanroom.night WHERE channel = %(channel)s ORDER BY id DESC LIMIT %(limit)s

-- name: results
-- How the builds of some trials ended, each with the first phase that failed.
SELECT trial.id AS trial_id, trial.product, trial.ref, trial.channel, build.target, attempt.outcome, attempt.why,
       attempt.finished_at, phase.name AS phase, phase.image_digest, package_state.packages
  FROM cleanroom.trial
  JOIN cleanroom.build ON build.trial_id = trial.id
  JOIN cleanroom.attempt ON attempt.build_id = build.id
   AND attempt.number = (SELECT max(number) FROM cleanroom.attempt AS latest WHERE latest.build_id = build.id)
  LEFT JOIN LATERAL (SELECT * FROM cleanroom.phase AS failed
                      WHERE failed.attempt_id = attempt.id AND failed.replay = 0 AND failed.outcome IN ('failed', 'regressed')
                      ORDER BY failed.position LIMIT 1) AS phase ON true
  LEFT JOIN cleanroom.package_state ON package_state.digest = phase.package_state
 WHERE trial.id = ANY(%(trials)s)
 ORDER BY trial.product, build.target

-- name: good
-- The last time that a phase passed for a product: in an earlier night, or else in the build of the release.
SELECT * FROM (
    SELECT 0 AS later, trial.id, trial.ref, phase.started_at AS at, phase.image_digest, package_state.packages
      FROM cleanroom.trial
      JOIN cleanroom.build ON build.trial_id = trial.id AND build.target = %(target)s
      JOIN cleanroom.attempt ON attempt.build_id = build.id
      JOIN cleanroom.phase
        ON phase.attempt_id = attempt.id AND phase.name = %(phase)s AND phase.replay = 0 AND phase.outcome = 'passed'
      LEFT JOIN cleanroom.package_state ON package_state.digest = phase.package_state
     WHERE trial.purpose = 'nightly' AND trial.product = %(product)s AND trial.channel = %(channel)s
       AND trial.id < %(trial)s
    UNION ALL
    SELECT 1, release.id, release.ref, phase.started_at, phase.image_digest, package_state.packages
      FROM cleanroom.release
      JOIN cleanroom.build ON build.release_id = release.id AND build.target = %(target)s
      JOIN cleanroom.attempt ON attempt.build_id = build.id
      JOIN cleanroom.phase
        ON phase.attempt_id = attempt.id AND phase.name = %(phase)s AND phase.replay = 0 AND phase.outcome = 'passed'
      LEFT JOIN cleanroom.package_state ON package_state.digest = phase.package_state
     WHERE release.product = %(product)s AND release.ref = %(ref)s) AS good
 ORDER BY later, id DESC, at DESC
 LIMIT 1
