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

-- name: ever
SELECT DISTINCT ON (channel, built_sha256) * FROM cleanroom.channel_package
 WHERE target = %(target)s AND format = %(format)s AND name = %(name)s AND version = %(version)s
   AND architecture = %(architecture)s
 ORDER BY channel, built_sha256, id

-- name: published_of
SELECT channel_package.* FROM cleanroom.channel_package
 WHERE channel = %(channel)s AND target = %(target)s AND removed_in IS NULL
   AND release_id = (SELECT max(there.release_id) FROM cleanroom.channel_package AS there
                       JOIN cleanroom.release ON release.id = there.release_id
                      WHERE there.channel = %(channel)s AND there.target = %(target)s AND there.removed_in IS NULL
                        AND release.product = %(product)s)
 ORDER BY channel_package.id
