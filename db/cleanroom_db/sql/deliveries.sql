-- name: begin
INSERT INTO cleanroom.delivery (remote, bringing) VALUES (%(remote)s, %(generation)s)
ON CONFLICT (remote) DO UPDATE SET bringing = excluded.bringing

-- name: files
SELECT place, identity FROM cleanroom.delivered_file WHERE remote = %(remote)s

-- name: brought
INSERT INTO cleanroom.delivered_file (remote, place, identity) VALUES %s
ON CONFLICT (remote, place) DO UPDATE SET identity = excluded.identity

-- name: removed
DELETE FROM cleanroom.delivered_file WHERE remote = %(remote)s AND place = ANY(%(places)s)

-- name: finish
UPDATE cleanroom.delivery SET generation = %(generation)s, delivered_at = now(), bringing = NULL, problem = ''
 WHERE remote = %(remote)s

-- name: explain
UPDATE cleanroom.delivery SET problem = %(problem)s WHERE remote = %(remote)s

-- name: forget
DELETE FROM cleanroom.delivered_file WHERE remote = %(remote)s

-- name: list
SELECT * FROM cleanroom.delivery ORDER BY remote
