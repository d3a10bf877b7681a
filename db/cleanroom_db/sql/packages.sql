-- name: known
SELECT sha256 FROM cleanroom.package WHERE sha256 = ANY(%(digests)s)

-- name: insert
INSERT INTO cleanroom.package (sha256, format, name, version, architecture, relations, diverts, problem)
VALUES (%(sha256)s, %(format)s, %(name)s, %(version)s, %(architecture)s, %(relations)s, %(diverts)s, %(problem)s)
ON CONFLICT DO NOTHING
RETURNING id

-- name: insert_paths
-- In the order of their digests, so that two who write the same paths wait for each other and never in a circle.
INSERT INTO cleanroom.path (digest, path)
SELECT decode(digest, 'hex'), path FROM unnest(%(digests)s::text[], %(paths)s::text[]) AS given (digest, path)
 WHERE NOT EXISTS (SELECT FROM cleanroom.path WHERE path.digest = decode(given.digest, 'hex'))
 ORDER BY digest
ON CONFLICT DO NOTHING

-- name: insert_files
INSERT INTO cleanroom.package_file (package_id, path_id, type, mode, size, digest, target)
SELECT %(package)s, path.id, type::cleanroom.file_type, mode, size, decode(content, 'hex'), target
  FROM unnest(%(digests)s::text[], %(types)s::text[], %(modes)s::integer[], %(sizes)s::bigint[], %(contents)s::text[],
              %(targets)s::text[]) AS given (digest, type, mode, size, content, target)
  JOIN cleanroom.path ON path.digest = decode(given.digest, 'hex')

-- name: files
SELECT path.path, type, mode, size, encode(package_file.digest, 'hex') AS digest, target
  FROM cleanroom.package
  JOIN cleanroom.package_file ON package_file.package_id = package.id
  JOIN cleanroom.path ON path.id = package_file.path_id
 WHERE package.sha256 = %(sha256)s
 ORDER BY path.path COLLATE "C"

-- name: get
SELECT * FROM cleanroom.package WHERE sha256 = %(sha256)s
