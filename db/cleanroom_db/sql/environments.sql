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

-- name: in_common (prepared)
-- The packages that all of the latest environments have which began with an image of one content, in one version.
WITH recent AS (
    SELECT DISTINCT package_state FROM (
        SELECT package_state FROM cleanroom.phase
         WHERE image_digest = %(digest)s AND package_state IS NOT NULL
         ORDER BY id DESC LIMIT %(phases)s) AS latest
     LIMIT %(states)s
)
SELECT one.key AS name, one.value AS version
  FROM recent
  JOIN cleanroom.package_state ON package_state.digest = recent.package_state
 CROSS JOIN LATERAL jsonb_each_text(package_state.packages) AS one
 GROUP BY one.key, one.value
HAVING count(*) = (SELECT count(*) FROM recent)
