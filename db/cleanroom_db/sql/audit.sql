-- name: record
INSERT INTO cleanroom.audit (actor, action, subject, reason, detail, allowed)
VALUES (%(actor)s, %(action)s, %(subject)s, %(reason)s, %(detail)s, %(allowed)s)

-- name: list
SELECT * FROM cleanroom.audit
 WHERE (%(subject)s::text IS NULL OR subject = %(subject)s)
 ORDER BY id DESC LIMIT %(limit)s

-- name: since
SELECT * FROM cleanroom.audit WHERE subject = %(subject)s AND id > %(entry)s AND allowed ORDER BY id DESC LIMIT 1
