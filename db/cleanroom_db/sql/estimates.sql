-- name: open (prepared)
-- Attempts that are not at their end, in the order in which they are worked on, and how long builds of the same product
-- on the same target took that passed.
SELECT CASE WHEN build.release_id IS NULL THEN 'trial' ELSE 'release' END AS kind,
       coalesce(build.release_id, build.trial_id) AS id,
       CASE WHEN attempt.lease_owner IS NOT NULL
            THEN extract(epoch FROM now() - attempt.started_at)::double precision END AS seconds,
       usual.seconds AS usual_seconds
  FROM (SELECT * FROM cleanroom.attempt WHERE finished_at IS NULL
         ORDER BY lease_owner IS NULL, priority, not_before, id LIMIT %(limit)s) AS attempt
  JOIN cleanroom.build ON build.id = attempt.build_id
  LEFT JOIN cleanroom.release ON release.id = build.release_id
  LEFT JOIN cleanroom.trial ON trial.id = build.trial_id
  LEFT JOIN LATERAL (
       SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY past.seconds) AS seconds FROM (
              SELECT extract(epoch FROM tried.finished_at - tried.started_at)::double precision AS seconds
                FROM (SELECT * FROM (
                             SELECT old.id AS release_id, NULL::bigint AS trial_id, old.id FROM cleanroom.release AS old
                              WHERE old.product = release.product ORDER BY old.id DESC LIMIT %(looked_at)s) AS releases
                       UNION ALL
                      SELECT * FROM (
                             SELECT NULL::bigint, old.id, old.id FROM cleanroom.trial AS old
                              WHERE old.product = trial.product AND old.purpose = trial.purpose
                              ORDER BY old.id DESC LIMIT %(looked_at)s) AS trials) AS known
                JOIN cleanroom.build AS made
                  ON (made.release_id = known.release_id OR made.trial_id = known.trial_id)
                 AND made.target = build.target
                JOIN cleanroom.attempt AS tried ON tried.build_id = made.id AND tried.outcome = 'passed'
               ORDER BY known.id DESC LIMIT %(runs)s) AS past) AS usual ON true
 ORDER BY attempt.lease_owner IS NULL, attempt.priority, attempt.not_before, attempt.id

-- name: places
-- How many attempts may be worked on at a time.
SELECT coalesce(sum(places), 0)::integer AS places FROM cleanroom.host WHERE state = 'ready'
