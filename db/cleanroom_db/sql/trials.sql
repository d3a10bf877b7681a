-- name: insert
INSERT INTO cleanroom.trial
    (purpose, product, ref, commit, kind, recipe, channel, conditions, subject, requested_by)
VALUES (%(purpose)s, %(product)s, %(ref)s, %(commit)s, %(kind)s, %(recipe)s, %(channel)s, %(conditions)s, %(subject)s,
        %(requested_by)s)
RETURNING id

-- name: insert_builds
INSERT INTO cleanroom.build (trial_id, target, phases) VALUES %s RETURNING id

-- name: insert_attempts
INSERT INTO cleanroom.attempt (build_id, number, series_start, priority) SELECT unnest(%(builds)s), 1, 1, %(priority)s

-- name: get
SELECT * FROM cleanroom.trial WHERE id = %(id)s

-- name: lock
SELECT * FROM cleanroom.trial WHERE id = %(id)s FOR NO KEY UPDATE

-- name: list
SELECT * FROM cleanroom.trial
 WHERE (%(purpose)s::cleanroom.trial_purpose IS NULL OR purpose = %(purpose)s)
   AND (%(product)s::text IS NULL OR product = %(product)s)
   AND (%(subject)s::bigint IS NULL OR subject = %(subject)s)
 ORDER BY id DESC LIMIT %(limit)s

-- name: attempts
-- The latest attempt of each of its builds.
SELECT DISTINCT ON (build.id) build.target, attempt.id AS attempt, attempt.outcome, attempt.why
  FROM cleanroom.build JOIN cleanroom.attempt ON attempt.build_id = build.id
 WHERE build.trial_id = %(id)s
 ORDER BY build.id, attempt.number DESC

-- name: finish
UPDATE cleanroom.trial SET outcome = %(outcome)s, why = %(why)s, finished_at = now()
 WHERE id = %(id)s AND finished_at IS NULL
