-- name: candidates
-- What is looked at, and what waits beside it: releases that passed, and those that are held because of one of these.
SELECT release.id AS release, release.product, release.ref, build.target, attempt.id AS attempt
  FROM cleanroom.release
  JOIN cleanroom.build ON build.release_id = release.id AND build.target = ANY(%(targets)s)
 CROSS JOIN LATERAL (SELECT id FROM cleanroom.attempt WHERE attempt.build_id = build.id
                      ORDER BY number DESC LIMIT 1) AS attempt
 WHERE release.id IN (
       SELECT unnest(%(checked)s::bigint[])
        UNION
       SELECT publication.release_id
         FROM cleanroom.publication JOIN cleanroom.release AS waiting ON waiting.id = publication.release_id
        WHERE publication.channel = %(channel)s
          -- What was refused and passed since waits again as soon as the publisher looks.
          AND ((publication.state = 'pending' AND waiting.state IN ('passed', 'published'))
               OR (publication.state = 'refused' AND waiting.state = 'passed'))
        UNION
       SELECT conflict.release_id
         FROM cleanroom.conflict JOIN cleanroom.release AS blocked ON blocked.id = conflict.release_id
        WHERE conflict.with_release = ANY(%(checked)s) AND conflict.channel = %(channel)s
          AND blocked.state = 'held' AND blocked.hold_reason IS NULL)
 ORDER BY release.id, build.target

-- name: packages
SELECT artifact.attempt_id AS attempt, artifact.file, artifact.sha256, artifact.kind, package.id, package.name,
       package.version, package.architecture, package.relations, package.problem
  FROM cleanroom.artifact LEFT JOIN cleanroom.package ON package.sha256 = artifact.sha256
 WHERE artifact.attempt_id = ANY(%(attempts)s) AND artifact.kind IN ('deb', 'rpm')
 ORDER BY artifact.attempt_id, artifact.file

-- name: mark
-- What tells one content of a channel from another.
SELECT count(*) AS packages, coalesce(max(id), 0) AS newest, coalesce(sum(id), 0)::text AS total
  FROM cleanroom.channel_package
 WHERE channel = %(channel)s AND target = ANY(%(targets)s) AND removed_in IS NULL

-- name: unread
SELECT DISTINCT ON (published.built_sha256) published.built_sha256, published.sha256, published.file, published.format,
       published.name, published.version, published.architecture
  FROM cleanroom.channel_package AS published
  LEFT JOIN cleanroom.package ON package.sha256 = published.built_sha256
 WHERE published.removed_in IS NULL AND published.format IN ('deb', 'rpm') AND package.id IS NULL
   AND (%(channel)s::text IS NULL OR (published.channel = %(channel)s AND published.target = ANY(%(targets)s)))
 ORDER BY published.built_sha256
 LIMIT %(limit)s

-- name: published
-- All of a channel as one text, and the packages in the order of its paragraphs; a million rows would take longer.
SELECT coalesce(array_agg(id), '{}') AS ids, coalesce(string_agg(relations, %(between)s), '') AS text
  FROM cleanroom.package
 WHERE package.format = %(format)s AND package.problem IS NULL AND package.id <> ALL(%(without)s)
   AND package.sha256 IN (SELECT published.built_sha256 FROM cleanroom.channel_package AS published
                           WHERE published.channel = %(channel)s AND published.target = ANY(%(targets)s)
                             AND published.removed_in IS NULL)

-- name: held_names
-- What is not published yet and held is not the distribution's.
SELECT DISTINCT package.name
  FROM cleanroom.release
  JOIN cleanroom.build ON build.release_id = release.id AND build.target = ANY(%(targets)s)
  JOIN cleanroom.attempt ON attempt.build_id = build.id
  JOIN cleanroom.artifact ON artifact.attempt_id = attempt.id
  JOIN cleanroom.package ON package.sha256 = artifact.sha256 AND package.format = %(format)s
 WHERE release.state = 'held' AND release.channel = %(channel)s

-- name: named
SELECT id, name, version, relations FROM cleanroom.package WHERE id = ANY(%(ids)s)

-- name: union_members
SELECT DISTINCT ON (package.id) package.id, package.name, package.sha256,
       coalesce(published.file, artifact.file) AS file, published.sha256 AS published
  FROM cleanroom.package
  LEFT JOIN cleanroom.channel_package AS published
         ON published.built_sha256 = package.sha256 AND published.removed_in IS NULL
        AND published.channel = %(channel)s AND published.target = ANY(%(targets)s)
  LEFT JOIN cleanroom.artifact ON artifact.sha256 = package.sha256
 WHERE package.id = ANY(%(ids)s) AND coalesce(published.file, artifact.file) IS NOT NULL
 ORDER BY package.id, artifact.id DESC

-- name: shared
-- Paths that packages have in common with others of the combination. A directory may be in many; an rpm may even have
-- a file that another has, when it is the same one; and what one of them diverts is none.
WITH mine AS MATERIALIZED (
    SELECT file.*, package.format, package.name, package.diverts
      FROM cleanroom.package_file AS file JOIN cleanroom.package ON package.id = file.package_id
     WHERE file.package_id = ANY(%(checked)s)
), met AS (
    SELECT mine.package_id, mine.path_id, other.package_id AS other, mine.type, mine.mode, mine.digest, mine.target,
           other.type AS other_type, other.mode AS other_mode, other.digest AS other_digest,
           other.target AS other_target, mine.format, mine.name, mine.diverts
      FROM mine JOIN cleanroom.package_file AS other ON other.path_id = mine.path_id AND other.type <> 'directory'
     WHERE other.package_id <> mine.package_id
    UNION ALL
    SELECT mine.package_id, mine.path_id, other.package_id, mine.type, mine.mode, mine.digest, mine.target,
           other.type, other.mode, other.digest, other.target, mine.format, mine.name, mine.diverts
      FROM mine JOIN cleanroom.package_file AS other ON other.path_id = mine.path_id AND other.type = 'directory'
     WHERE other.package_id <> mine.package_id AND mine.type <> 'directory'
)
SELECT met.package_id AS package, met.other, count(*) AS number, min(path.path COLLATE "C") AS path
  FROM met
  JOIN cleanroom.package AS other ON other.id = met.other AND other.format = met.format AND other.name <> met.name
  JOIN cleanroom.path ON path.id = met.path_id
 WHERE (other.id = ANY(%(candidates)s)
        OR EXISTS (SELECT FROM cleanroom.channel_package AS published
                    WHERE published.built_sha256 = other.sha256 AND published.removed_in IS NULL
                      AND published.channel = %(channel)s AND published.target = ANY(%(targets)s)))
   AND NOT (met.format = 'rpm' AND met.type = met.other_type AND met.mode = met.other_mode
            AND met.digest IS NOT DISTINCT FROM met.other_digest AND met.target IS NOT DISTINCT FROM met.other_target
            AND (met.type <> 'file' OR met.digest IS NOT NULL))
   AND path.path <> ALL(met.diverts || other.diverts)
 GROUP BY met.package_id, met.other
 ORDER BY met.package_id, met.other
 LIMIT %(limit)s

-- name: forget
DELETE FROM cleanroom.conflict_check
 WHERE release_id = %(release)s AND channel = %(channel)s AND target = %(target)s

-- name: forget_all
DELETE FROM cleanroom.conflict_check WHERE release_id = %(release)s

-- name: record
INSERT INTO cleanroom.conflict_check (release_id, channel, target, basis, packages, note)
VALUES (%(release)s, %(channel)s, %(target)s, %(basis)s, %(packages)s, %(note)s)

-- name: insert
INSERT INTO cleanroom.conflict
    (release_id, channel, target, kind, package, other, with_release, subject, why)
VALUES %s

-- name: checks
SELECT target, basis, packages, note FROM cleanroom.conflict_check
 WHERE release_id = %(release)s AND channel = %(channel)s

-- name: conflicts
SELECT conflict.*, other.product AS with_product, other.ref AS with_ref
  FROM cleanroom.conflict LEFT JOIN cleanroom.release AS other ON other.id = conflict.with_release
 WHERE conflict.release_id = %(release)s AND conflict.channel = %(channel)s
 ORDER BY conflict.id

-- name: held
-- Releases that nothing but a conflict keeps, and no person.
SELECT release.id, release.channel, array_agg(DISTINCT gate_result.target) AS targets
  FROM cleanroom.release JOIN cleanroom.gate_result ON gate_result.release_id = release.id
 WHERE release.state = 'held' AND release.hold_reason IS NULL
   AND gate_result.gate = %(gate)s AND gate_result.state = 'fails'
 GROUP BY release.id, release.channel
 ORDER BY release.id

-- name: prune
-- What is neither published nor under way is read again when it is needed. A new one stays for a while.
DELETE FROM cleanroom.package WHERE id IN (
SELECT id FROM cleanroom.package
 WHERE read_at < now() - make_interval(secs => %(age)s)
   AND NOT EXISTS (SELECT FROM cleanroom.channel_package AS published
                    WHERE published.built_sha256 = package.sha256 AND published.removed_in IS NULL)
   AND NOT EXISTS (SELECT FROM cleanroom.artifact
                     JOIN cleanroom.attempt ON attempt.id = artifact.attempt_id
                     JOIN cleanroom.build ON build.id = attempt.build_id
                     JOIN cleanroom.release ON release.id = build.release_id
                    WHERE artifact.sha256 = package.sha256
                      AND release.state IN ('waiting', 'building', 'passed', 'held'))
 LIMIT %(limit)s)
