-- What programs ask for, list by list. Every block is bounded, and goes on after a key.

-- name: products
SELECT * FROM cleanroom.product
 WHERE removed_at IS NULL AND name > %(after)s AND (%(part)s::text IS NULL OR strpos(name, %(part)s) > 0)
 ORDER BY name LIMIT %(limit)s

-- name: releases
SELECT * FROM cleanroom.release
 WHERE (%(product)s::text IS NULL OR product = %(product)s) AND (%(ref)s::text IS NULL OR ref = %(ref)s)
   AND (%(channel)s::text IS NULL OR channel = %(channel)s)
   AND (%(state)s::cleanroom.release_state IS NULL OR state = %(state)s)
   AND (%(before)s::bigint IS NULL OR id < %(before)s)
 ORDER BY id DESC LIMIT %(limit)s

-- name: name_of
SELECT product, ref FROM cleanroom.release WHERE id = %(id)s

-- name: attempt
SELECT attempt.*, build.target, build.phases AS planned, build.release_id, build.trial_id,
       coalesce(release.product, trial.product) AS product, coalesce(release.ref, trial.ref) AS ref
  FROM cleanroom.attempt
  JOIN cleanroom.build ON build.id = attempt.build_id
  LEFT JOIN cleanroom.release ON release.id = build.release_id
  LEFT JOIN cleanroom.trial ON trial.id = build.trial_id
 WHERE attempt.id = %(id)s

-- name: phases
SELECT * FROM cleanroom.phase WHERE attempt_id = %(id)s ORDER BY position, replay LIMIT 1000

-- name: steps
SELECT step.* FROM cleanroom.step JOIN cleanroom.phase ON phase.id = step.phase_id
 WHERE phase.attempt_id = %(id)s ORDER BY phase.position, phase.replay, step.position LIMIT 5000

-- name: cases
SELECT * FROM cleanroom.test_case WHERE phase_id = %(phase)s AND id > %(after)s ORDER BY id LIMIT %(limit)s

-- name: phase
SELECT 1 FROM cleanroom.phase WHERE id = %(phase)s

-- name: packages
SELECT package.*, release.product, release.ref
  FROM cleanroom.channel_package AS package
  LEFT JOIN cleanroom.release ON release.id = package.release_id
 WHERE package.added_in <= %(number)s AND (package.removed_in IS NULL OR package.removed_in > %(number)s)
   AND (%(channel)s::text IS NULL OR package.channel = %(channel)s)
   AND (%(name)s::text IS NULL OR package.name = %(name)s)
   AND package.id > %(after)s
 ORDER BY package.id LIMIT %(limit)s

-- name: changes
-- What became of a release, and when, newest first.
SELECT change.id, change.state, change.why, change.at, release.id AS release_id, release.product, release.ref,
       release.version, release.channel
  FROM cleanroom.state_change AS change JOIN cleanroom.release ON release.id = change.release_id
 WHERE release.product = %(product)s
 ORDER BY change.id DESC LIMIT %(limit)s
