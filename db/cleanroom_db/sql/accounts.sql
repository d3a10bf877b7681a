-- name: insert
-- One that was removed comes back, as a new one: its roles and tokens were taken from it.
INSERT INTO cleanroom.account AS account (name, password, issuer, subject, created_by)
VALUES (%(name)s, %(password)s, %(issuer)s, %(subject)s, %(created_by)s)
ON CONFLICT (name) DO UPDATE
   SET password = excluded.password, issuer = excluded.issuer, subject = excluded.subject, removed_at = NULL,
       created_at = now(), created_by = excluded.created_by
 WHERE account.removed_at IS NOT NULL
RETURNING id

-- name: insert_from_provider
INSERT INTO cleanroom.account (name, issuer, subject, created_by)
VALUES (%(name)s, %(issuer)s, %(subject)s, %(name)s)
ON CONFLICT DO NOTHING
RETURNING id

-- name: get (prepared)
SELECT * FROM cleanroom.account WHERE name = %(name)s AND removed_at IS NULL

-- name: by_id (prepared)
SELECT * FROM cleanroom.account WHERE id = %(id)s AND removed_at IS NULL

-- name: by_subject
SELECT * FROM cleanroom.account WHERE issuer = %(issuer)s AND subject = %(subject)s

-- name: list
SELECT * FROM cleanroom.account WHERE removed_at IS NULL ORDER BY name

-- name: any
SELECT EXISTS (SELECT FROM cleanroom.account WHERE removed_at IS NULL)

-- name: set_password
UPDATE cleanroom.account SET password = %(password)s WHERE id = %(id)s

-- name: change_password
SELECT cleanroom.change_password(%(secret)s, %(password)s, %(address)s)

-- name: remove
-- Who signed in through a provider is known again by it, and stays out.
UPDATE cleanroom.account SET removed_at = now(), password = NULL WHERE id = %(id)s

-- name: grants (prepared)
SELECT role, product FROM cleanroom.account_grant WHERE account = %(id)s ORDER BY product NULLS FIRST, role

-- name: all_grants
SELECT account, role, product FROM cleanroom.account_grant ORDER BY account, product NULLS FIRST, role

-- name: grant
INSERT INTO cleanroom.account_grant (account, role, product, granted_by)
VALUES (%(id)s, %(role)s, %(product)s, %(granted_by)s)
ON CONFLICT DO NOTHING

-- name: grant_reading
INSERT INTO cleanroom.account_grant (account, role, granted_by) VALUES (%(id)s, 'reader', %(granted_by)s)

-- name: revoke
DELETE FROM cleanroom.account_grant
 WHERE account = %(id)s AND role = %(role)s AND product IS NOT DISTINCT FROM %(product)s

-- name: revoke_all
DELETE FROM cleanroom.account_grant WHERE account = %(id)s
