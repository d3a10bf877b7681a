-- name: add
INSERT INTO cleanroom.product AS product (name, url, recipe, tag_patterns, branches, signature_policy, existing)
VALUES (%(name)s, %(url)s, %(recipe)s, %(tag_patterns)s, %(branches)s, %(signature_policy)s, %(existing)s)
ON CONFLICT (name) DO UPDATE
   SET url = excluded.url, recipe = excluded.recipe, tag_patterns = excluded.tag_patterns,
       branches = excluded.branches, signature_policy = excluded.signature_policy, existing = excluded.existing,
       removed_at = NULL, watched_at = NULL, watch_error = NULL
 WHERE product.removed_at IS NOT NULL
RETURNING *

-- name: get
SELECT * FROM cleanroom.product WHERE name = %(name)s

-- name: get_many
SELECT * FROM cleanroom.product WHERE name = ANY(%(names)s)

-- name: watched
SELECT * FROM cleanroom.product WHERE removed_at IS NULL ORDER BY name

-- name: remove
UPDATE cleanroom.product SET removed_at = now() WHERE name = %(name)s AND removed_at IS NULL

-- name: lock
SELECT * FROM cleanroom.product WHERE name = %(name)s AND removed_at IS NULL FOR NO KEY UPDATE

-- name: looked
UPDATE cleanroom.product
   SET watch_error = %(error)s,
       watched_at = CASE WHEN %(error)s::text IS NULL THEN now() ELSE watched_at END
 WHERE name = %(name)s
