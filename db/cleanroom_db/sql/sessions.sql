-- name: insert
INSERT INTO cleanroom.session (secret, account, address) VALUES (%(secret)s, %(account)s, %(address)s)

-- name: find (prepared)
SELECT account, now() - seen_at > interval '1 minute' AS stale FROM cleanroom.session
 WHERE secret = %(secret)s
   AND seen_at > now() - make_interval(secs => %(idle)s) AND created_at > now() - make_interval(secs => %(age)s)

-- name: seen
UPDATE cleanroom.session SET seen_at = now() WHERE secret = %(secret)s

-- name: end
DELETE FROM cleanroom.session WHERE secret = %(secret)s

-- name: end_all
DELETE FROM cleanroom.session WHERE account = %(account)s

-- name: end_expired
DELETE FROM cleanroom.session
 WHERE seen_at < now() - make_interval(secs => %(idle)s) OR created_at < now() - make_interval(secs => %(age)s)

-- name: count
SELECT count(*) FROM cleanroom.session WHERE account = %(account)s

-- name: one_at_a_time
SELECT pg_advisory_xact_lock(hashtextextended(%(word)s, 0))

-- name: failures
SELECT (SELECT count(*) FROM cleanroom.sign_in_failure
         WHERE account = %(account)s AND at > now() - make_interval(secs => %(window)s)) AS of_account,
       (SELECT count(*) FROM cleanroom.sign_in_failure
         WHERE address = %(address)s AND at > now() - make_interval(secs => %(window)s)) AS of_address

-- name: failed
INSERT INTO cleanroom.sign_in_failure (account, address) VALUES (%(account)s, %(address)s)

-- name: succeeded
DELETE FROM cleanroom.sign_in_failure WHERE account = %(account)s

-- name: forget_failures
DELETE FROM cleanroom.sign_in_failure WHERE at < now() - make_interval(secs => %(window)s)
