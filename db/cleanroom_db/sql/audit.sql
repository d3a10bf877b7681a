-- name: record
INSERT INTO cleanroom.audit (actor, action, subject, reason, detail)
VALUES (%(actor)s, %(action)s, %(subject)s, %(reason)s, %(detail)s)

-- name: list
SELECT * FROM cleanroom.audit
 WHERE (%(subject)s::text IS NULL OR subject = %(subject)s)
 ORDER BY id DESC LIMIT %(limit)s
