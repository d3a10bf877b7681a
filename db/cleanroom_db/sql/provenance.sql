-- name: release
SELECT release.product, release.ref, release.commit, release.kind, release.version, release.channel,
       release.requested_by, release.recipe_digest, release.gates, product.url,
       event.recorded_by, event.recorded_at, event.tag_kind, event.tagger, event.signature, event.tagged_at
  FROM cleanroom.release
  JOIN cleanroom.product ON product.name = release.product
  JOIN cleanroom.ref_event AS event ON event.id = release.ref_event_id
 WHERE release.id = %(release)s

-- name: attempts
-- The attempts whose files are published, as the block `files` of publications has them.
SELECT attempt.*, build.target
  FROM cleanroom.release
  JOIN cleanroom.build ON build.release_id = release.id
  JOIN cleanroom.attempt ON attempt.build_id = build.id
 WHERE release.id = %(release)s AND attempt.finished_at IS NOT NULL
   AND attempt.number = (SELECT max(number) FROM cleanroom.attempt AS latest WHERE latest.build_id = build.id)
 ORDER BY build.target

-- name: phases
SELECT * FROM cleanroom.phase WHERE attempt_id = ANY(%(attempts)s) ORDER BY attempt_id, position, replay

-- name: steps
SELECT step.* FROM cleanroom.step JOIN cleanroom.phase ON phase.id = step.phase_id
 WHERE phase.attempt_id = ANY(%(attempts)s) ORDER BY step.phase_id, step.position

-- name: packages
-- What was installed when the phases that build and that install had ended.
SELECT phase.attempt_id, phase.name, state.packages
  FROM cleanroom.phase JOIN cleanroom.package_state AS state ON state.digest = phase.package_state
 WHERE phase.attempt_id = ANY(%(attempts)s) AND phase.replay = 0 AND phase.name = ANY(%(names)s)

-- name: artifacts
SELECT * FROM cleanroom.artifact WHERE attempt_id = ANY(%(attempts)s) AND replay = 0 ORDER BY attempt_id, file

-- name: published
SELECT DISTINCT sha256 FROM cleanroom.channel_package WHERE sha256 = ANY(%(packages)s)

-- name: signed
SELECT sha256 FROM cleanroom.provenance WHERE sha256 = ANY(%(packages)s) AND attempt_id = ANY(%(attempts)s)

-- name: record
INSERT INTO cleanroom.provenance (sha256, attempt_id, statement_sha256, bill_sha256, signed_by) VALUES %s
ON CONFLICT (sha256) DO UPDATE
   SET attempt_id = excluded.attempt_id, statement_sha256 = excluded.statement_sha256,
       bill_sha256 = excluded.bill_sha256, signed_by = excluded.signed_by, signed_at = now()

-- name: of_generation
SELECT DISTINCT ON (package.id) package.id, provenance.*
  FROM cleanroom.channel_package AS package JOIN cleanroom.provenance ON provenance.sha256 = package.sha256
 WHERE package.added_in <= %(number)s AND (package.removed_in IS NULL OR package.removed_in > %(number)s)
 ORDER BY package.id

-- name: of_release (prepared)
-- However often a package came into a channel and went, it is there once.
SELECT DISTINCT ON (package.channel, package.target, package.file, package.sha256)
       package.file, package.channel, package.target, package.format, package.name, provenance.*
  FROM cleanroom.channel_package AS package JOIN cleanroom.provenance ON provenance.sha256 = package.sha256
 WHERE package.release_id = %(release)s
 ORDER BY package.channel, package.target, package.file, package.sha256
