-- name: insert
INSERT INTO cleanroom.api_token (account, name, secret, role, product, created_by, expires_at)
VALUES (%(account)s, %(name)s, %(secret)s, %(role)s, %(product)s, %(created_by)s, %(expires_at)s)
ON CONFLICT (account, name) WHERE revoked_at IS NULL DO NOTHING
RETURNING *

-- name: find (prepared)
SELECT *, expires_at <= now() AS expired, coalesce(now() - used_at > interval '1 minute', true) AS stale
  FROM cleanroom.api_token WHERE secret = %(secret)s

-- name: used
UPDATE cleanroom.api_token SET used_at = now() WHERE id = %(id)s

-- name: list
SELECT api_token.*, account.name AS account_name
  FROM cleanroom.api_token JOIN cleanroom.account ON account.id = api_token.account
 WHERE revoked_at IS NULL AND (%(account)s::bigint IS NULL OR api_token.account = %(account)s)
 ORDER BY account.name, api_token.name

-- name: revoke
UPDATE cleanroom.api_token SET revoked_at = now()
 WHERE account = %(account)s AND name = %(name)s AND revoked_at IS NULL

-- name: revoke_all
UPDATE cleanroom.api_token SET revoked_at = now() WHERE account = %(account)s AND revoked_at IS NULL
