-- name: schema
SELECT max(number) FROM cleanroom.migration

-- name: generation
SELECT max(number) FROM cleanroom.generation WHERE switched_at IS NOT NULL

-- name: logs
-- A backup before an upgrade is of a record that does not have this column yet.
SELECT DISTINCT log_sha256 AS digest FROM cleanroom.step
 WHERE log_sha256 > %(after)s::text AND to_jsonb(step) ->> 'log_removed_at' IS NULL ORDER BY 1 LIMIT %(limit)s

-- name: artifacts
SELECT DISTINCT sha256 AS digest FROM cleanroom.artifact
 WHERE sha256 > %(after)s::text AND to_jsonb(artifact) ->> 'removed_at' IS NULL ORDER BY 1 LIMIT %(limit)s
