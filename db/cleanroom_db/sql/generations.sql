-- name: begin
INSERT INTO cleanroom.generation (number, actor, reason)
VALUES (greatest(%(at_least)s, (SELECT coalesce(max(number), 0) + 1 FROM cleanroom.generation)),
        %(actor)s, %(reason)s)
RETURNING *

-- name: unswitched
SELECT * FROM cleanroom.generation WHERE switched_at IS NULL

-- name: current
SELECT * FROM cleanroom.generation WHERE switched_at IS NOT NULL ORDER BY number DESC LIMIT 1

-- name: history
SELECT * FROM cleanroom.generation WHERE switched_at IS NOT NULL ORDER BY number DESC LIMIT %(limit)s

-- name: add_packages
INSERT INTO cleanroom.channel_package
    (channel, target, format, name, version, architecture, file, sha256, built_sha256, size, release_id, added_in)
VALUES %s

-- name: remove_packages
UPDATE cleanroom.channel_package SET removed_in = %(number)s WHERE id = ANY(%(ids)s) AND removed_in IS NULL

-- name: describe
UPDATE cleanroom.generation
   SET added = (SELECT coalesce(jsonb_agg(package ORDER BY package.channel, package.file), '[]')
                  FROM (SELECT channel, target, format, name, version, architecture, file
                          FROM cleanroom.channel_package WHERE added_in = %(number)s) AS package),
       removed = (SELECT coalesce(jsonb_agg(package ORDER BY package.channel, package.file), '[]')
                    FROM (SELECT channel, target, format, name, version, architecture, file
                            FROM cleanroom.channel_package WHERE removed_in = %(number)s) AS package)
 WHERE number = %(number)s
RETURNING *

-- name: switched
UPDATE cleanroom.generation SET switched_at = now() WHERE number = %(number)s AND switched_at IS NULL

-- name: detach_publications
UPDATE cleanroom.publication SET generation = NULL WHERE generation = %(number)s AND state = 'pending'

-- name: restore_packages
UPDATE cleanroom.channel_package SET removed_in = NULL WHERE removed_in = %(number)s

-- name: discard_packages
DELETE FROM cleanroom.channel_package WHERE added_in = %(number)s

-- name: discard
DELETE FROM cleanroom.generation WHERE number = %(number)s AND switched_at IS NULL

-- name: contents
SELECT * FROM cleanroom.channel_package
 WHERE added_in <= %(number)s AND (removed_in IS NULL OR removed_in > %(number)s)
 ORDER BY channel, target, name, version, architecture

-- name: published_of
SELECT package.* FROM cleanroom.channel_package AS package
 WHERE package.channel = %(channel)s AND package.target = %(target)s AND package.removed_in IS NULL
   AND package.release_id = (
       SELECT max(release.id)
         FROM cleanroom.release
         JOIN cleanroom.channel_package AS there ON there.release_id = release.id
         JOIN cleanroom.generation ON generation.number = there.added_in
        WHERE release.product = %(product)s AND there.channel = %(channel)s AND there.target = %(target)s
          AND there.removed_in IS NULL AND generation.switched_at IS NOT NULL)
 ORDER BY package.name, package.id

-- name: ever
SELECT DISTINCT ON (channel, built_sha256) * FROM cleanroom.channel_package
 WHERE target = %(target)s AND format = %(format)s AND name = %(name)s AND version = %(version)s
   AND architecture = %(architecture)s
 ORDER BY channel, built_sha256, id
