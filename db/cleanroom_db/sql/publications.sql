-- name: pending
SELECT publication.*, release.product, release.ref, release.commit, release.version, release.ref_event_id
  FROM cleanroom.publication JOIN cleanroom.release ON release.id = publication.release_id
 WHERE publication.state = 'pending'
 ORDER BY publication.id LIMIT %(limit)s

-- name: still_pending
SELECT id FROM cleanroom.publication WHERE id = ANY(%(ids)s) AND state = 'pending'

-- name: try_approved_again
UPDATE cleanroom.publication SET state = 'pending', why = ''
  FROM cleanroom.release
 WHERE release.id = publication.release_id AND publication.state = 'refused' AND release.state = 'passed'

-- name: request
INSERT INTO cleanroom.publication (release_id, channel, requested_by)
VALUES (%(release)s, %(channel)s, %(requested_by)s)
ON CONFLICT DO NOTHING

-- name: refuse
UPDATE cleanroom.publication SET state = 'refused', why = %(why)s
 WHERE id = %(id)s AND state = 'pending'
RETURNING release_id

-- name: hold_release
UPDATE cleanroom.release SET state = 'held', why = %(why)s WHERE id = %(release)s AND state = 'passed'

-- name: explain_waiting
UPDATE cleanroom.release SET why = %(why)s
  FROM cleanroom.publication
 WHERE publication.release_id = release.id AND publication.state = 'pending' AND release.state = 'passed'
   AND release.why <> %(why)s

-- name: files
SELECT artifact.*, build.target, attempt.id AS attempt_id
  FROM cleanroom.release
  JOIN cleanroom.build ON build.release_id = release.id
  JOIN cleanroom.attempt ON attempt.build_id = build.id
  JOIN cleanroom.artifact ON artifact.attempt_id = attempt.id
 WHERE release.id = %(release)s
   AND (attempt.outcome IN ('passed', 'flaky')
        -- A phase of it was waived: the verdict let the release pass.
        OR (attempt.outcome IN ('failed', 'regressed') AND release.state IN ('passed', 'published')))
   AND attempt.number = (SELECT max(number) FROM cleanroom.attempt AS latest WHERE latest.build_id = build.id)
 ORDER BY build.target, artifact.file

-- name: attach
UPDATE cleanroom.publication SET generation = %(generation)s
 WHERE id = ANY(%(ids)s) AND state = 'pending'

-- name: published
UPDATE cleanroom.publication SET state = 'published', why = '' WHERE generation = %(generation)s AND state = 'pending'

-- name: promote
-- What was refused before is asked again; what left the channel comes back only by a rollback.
INSERT INTO cleanroom.publication (release_id, channel, requested_by)
VALUES (%(release)s, %(channel)s, %(requested_by)s)
ON CONFLICT (release_id, channel) DO UPDATE
   SET state = 'pending', why = '', requested_by = excluded.requested_by, requested_at = now()
 WHERE publication.state IN ('refused', 'cancelled', 'removed')
RETURNING id

-- name: get
SELECT * FROM cleanroom.publication WHERE id = %(id)s

-- name: of_release
SELECT * FROM cleanroom.publication WHERE release_id = %(release)s ORDER BY id

-- name: withdraw_waiting
UPDATE cleanroom.publication SET state = 'withdrawn', why = %(why)s
 WHERE release_id = %(release)s AND state IN ('pending', 'refused')
   AND (%(channel)s::text IS NULL OR channel = %(channel)s)
RETURNING channel

-- name: withdraw_release
UPDATE cleanroom.release SET state = 'withdrawn', why = %(why)s
 WHERE id = %(release)s AND state IN ('passed', 'held')
   AND NOT EXISTS (SELECT FROM cleanroom.publication WHERE release_id = release.id AND state = 'pending')

-- name: note_security_fix
INSERT INTO cleanroom.security_fix (release_id, evidence) VALUES (%(release)s, %(evidence)s) ON CONFLICT DO NOTHING

-- name: message
SELECT event.message FROM cleanroom.release JOIN cleanroom.ref_event AS event ON event.id = release.ref_event_id
 WHERE release.id = %(release)s
