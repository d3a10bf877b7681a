-- name: packages (prepared)
SELECT packages FROM cleanroom.package_state WHERE digest = %(digest)s

-- name: seen (prepared)
-- The first phases that ended with it.
SELECT phase.name AS phase, build.target, coalesce(release.product, trial.product) AS product,
       coalesce(release.ref, trial.ref) AS ref, trial.purpose
  FROM cleanroom.phase
  JOIN cleanroom.attempt ON attempt.id = phase.attempt_id
  JOIN cleanroom.build ON build.id = attempt.build_id
  LEFT JOIN cleanroom.release ON release.id = build.release_id
  LEFT JOIN cleanroom.trial ON trial.id = build.trial_id
 WHERE phase.package_state = %(digest)s
 ORDER BY phase.id LIMIT %(limit)s
