-- name: record_many
INSERT INTO cleanroom.ref_event
    (product, kind, ref, commit, previous_commit, change, tag_kind, tagger, message, signature, branch, tagged_at,
     recorded_by, state, why, settled_at)
VALUES %s
ON CONFLICT DO NOTHING
RETURNING id

-- name: list
SELECT * FROM cleanroom.ref_event
 WHERE (%(product)s::text IS NULL OR product = %(product)s)
 ORDER BY id DESC LIMIT %(limit)s

-- name: get
SELECT * FROM cleanroom.ref_event WHERE id = %(id)s

-- name: recorded
SELECT * FROM cleanroom.ref_event WHERE id = ANY(%(ids)s) AND state = 'recorded' ORDER BY id LIMIT %(limit)s

-- name: latest
SELECT * FROM cleanroom.ref_event WHERE product = %(product)s AND ref = %(ref)s ORDER BY id DESC LIMIT 1

-- name: unresolved
SELECT event.* FROM cleanroom.ref_event AS event
 WHERE event.state = 'recorded' AND event.commit IS NULL AND event.not_before <= now()
 ORDER BY event.id LIMIT %(limit)s

-- name: resolve
UPDATE cleanroom.ref_event
   SET commit = %(commit)s, tag_kind = %(tag_kind)s, tagger = %(tagger)s, message = %(message)s,
       signature = %(signature)s, tagged_at = %(tagged_at)s
 WHERE id = %(id)s AND state = 'recorded' AND commit IS NULL

-- name: settle
UPDATE cleanroom.ref_event
   SET state = %(state)s, why = %(why)s, settled_at = now()
 WHERE id = ANY(%(ids)s) AND state = 'recorded'

-- name: postpone
UPDATE cleanroom.ref_event
   SET why = %(why)s, not_before = now() + make_interval(secs => %(seconds)s)
 WHERE id = %(id)s AND state = 'recorded'

-- name: latest_tags
SELECT DISTINCT ON (ref) ref, commit, change
  FROM cleanroom.ref_event
 WHERE product = %(product)s AND kind = 'tag' AND (commit IS NOT NULL OR change = 'deleted')
 ORDER BY ref, id DESC

-- name: latest_tips
SELECT DISTINCT ON (branch) branch, commit
  FROM cleanroom.ref_event
 WHERE product = %(product)s AND kind = 'commit' AND branch IS NOT NULL AND commit IS NOT NULL
 ORDER BY branch, id DESC

-- name: known_commits
SELECT commit FROM cleanroom.ref_event
 WHERE product = %(product)s AND kind = 'commit' AND ref = ANY(%(commits)s) AND commit IS NOT NULL

-- name: lock_claimable
SELECT event.*,
       EXISTS (SELECT FROM cleanroom.release
                WHERE release.product = event.product AND release.ref = event.ref) AS released
  FROM cleanroom.ref_event AS event
 WHERE event.state = 'recorded' AND event.commit IS NOT NULL AND event.not_before <= now()
 ORDER BY event.id
 LIMIT %(limit)s
   FOR UPDATE OF event SKIP LOCKED
