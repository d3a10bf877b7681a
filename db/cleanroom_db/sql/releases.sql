-- name: insert_many
INSERT INTO cleanroom.release
    (product, ref, commit, kind, version, ref_event_id, recipe, recipe_digest, channel, requested_by, why, hold_reason,
     gates)
VALUES %s
ON CONFLICT DO NOTHING
RETURNING *

-- name: insert_builds
INSERT INTO cleanroom.build (release_id, target, phases) VALUES %s RETURNING id

-- name: insert_first_attempts
INSERT INTO cleanroom.attempt (build_id, number, series_start) SELECT unnest(%(builds)s), 1, 1

-- name: find
SELECT * FROM cleanroom.release WHERE product = %(product)s AND ref = %(ref)s

-- name: get
SELECT * FROM cleanroom.release WHERE id = %(id)s

-- name: any_of
SELECT EXISTS (SELECT FROM cleanroom.release WHERE id = ANY(%(ids)s::bigint[]))

-- name: list
SELECT * FROM cleanroom.release
 WHERE (%(product)s::text IS NULL OR product = %(product)s)
   AND (%(state)s::cleanroom.release_state IS NULL OR state = %(state)s)
 ORDER BY id DESC LIMIT %(limit)s

-- name: builders
SELECT DISTINCT coalesce(release.product, trial.product) AS product, build.target
  FROM cleanroom.build
  LEFT JOIN cleanroom.release ON release.id = build.release_id
  LEFT JOIN cleanroom.trial ON trial.id = build.trial_id
 ORDER BY 1, 2

-- name: lock
SELECT * FROM cleanroom.release WHERE id = %(id)s FOR NO KEY UPDATE

-- name: set_version
UPDATE cleanroom.release SET version = %(version)s WHERE id = %(id)s

-- name: set_state
UPDATE cleanroom.release
   SET state = %(state)s, why = %(why)s, finished_at = CASE WHEN %(open)s THEN NULL ELSE now() END
 WHERE id = %(id)s

-- name: set_hold
UPDATE cleanroom.release SET hold_reason = %(reason)s WHERE id = %(id)s

-- name: set_approved
UPDATE cleanroom.release SET hold_reason = NULL, approved_by = %(actor)s, approved_at = now() WHERE id = %(id)s

-- name: latest_attempts
SELECT DISTINCT ON (build.id)
       build.id AS build_id, build.target, attempt.number, attempt.outcome, attempt.why
  FROM cleanroom.build JOIN cleanroom.attempt ON attempt.build_id = build.id
 WHERE build.release_id = %(id)s
 ORDER BY build.id, attempt.number DESC

-- name: insert_next_attempt
INSERT INTO cleanroom.attempt (build_id, number, series_start)
VALUES (%(build)s, %(number)s, %(number)s)

-- name: request_publication
INSERT INTO cleanroom.publication (release_id, channel, requested_by)
VALUES (%(id)s, %(channel)s, %(requested_by)s)
ON CONFLICT DO NOTHING
