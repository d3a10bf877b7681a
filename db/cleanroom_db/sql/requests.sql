-- name: insert
INSERT INTO cleanroom.repository_request (kind, actor, reason, target, release_id, channel, forced, parameters)
VALUES (%(kind)s, %(actor)s, %(reason)s, %(target)s, %(release)s, %(channel)s, %(forced)s, %(parameters)s)
RETURNING *

-- name: get
SELECT * FROM cleanroom.repository_request WHERE id = %(id)s

-- name: next
SELECT * FROM cleanroom.repository_request WHERE state = 'pending' ORDER BY id LIMIT 1

-- name: finish
UPDATE cleanroom.repository_request
   SET state = %(state)s, why = %(why)s, result = %(result)s, finished_at = now()
 WHERE id = %(id)s AND state = 'pending'

-- name: note
UPDATE cleanroom.repository_request SET why = %(why)s, result = %(result)s WHERE id = %(id)s AND state = 'pending'

-- name: lock_all
SELECT pg_advisory_xact_lock(hashtextextended('cleanroom.repository_request', 0))

-- name: latest_rollback
SELECT * FROM cleanroom.repository_request WHERE kind = 'rollback' ORDER BY id DESC LIMIT 1
