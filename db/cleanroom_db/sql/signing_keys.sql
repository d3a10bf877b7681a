-- name: all
SELECT * FROM cleanroom.signing_key ORDER BY signs_since, made_at, fingerprint

-- name: add
INSERT INTO cleanroom.signing_key (fingerprint, user_id, public_key, made_at, expires_at)
VALUES (%(fingerprint)s, %(user_id)s, %(public_key)s, %(made_at)s, %(expires_at)s)
ON CONFLICT (fingerprint) DO NOTHING

-- name: leave
UPDATE cleanroom.signing_key SET retires_at = %(at)s
 WHERE retired_at IS NULL AND fingerprint <> %(successor)s

-- name: retire
UPDATE cleanroom.signing_key SET retired_at = now(), why = %(why)s WHERE fingerprint = %(fingerprint)s AND retired_at IS NULL

-- name: stay
UPDATE cleanroom.signing_key SET retires_at = NULL
 WHERE retired_at IS NULL AND (SELECT count(*) FROM cleanroom.signing_key WHERE retired_at IS NULL) = 1

-- name: extend
UPDATE cleanroom.signing_key SET expires_at = %(expires_at)s, public_key = %(public_key)s
 WHERE fingerprint = %(fingerprint)s
