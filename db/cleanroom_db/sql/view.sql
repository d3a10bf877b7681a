-- name: release (prepared)
SELECT release.*, event.recorded_at, event.recorded_by, event.settled_at AS claimed_at, event.tag_kind, event.tagger,
       event.signature, event.tagged_at,
       ARRAY(SELECT other.product || ' ' || other.ref
               FROM cleanroom.release_wait JOIN cleanroom.release AS other ON other.id = release_wait.waits_for
              WHERE release_wait.release_id = release.id AND other.state IN ('waiting', 'building', 'passed')
              ORDER BY 1) AS waits_for
  FROM cleanroom.release JOIN cleanroom.ref_event AS event ON event.id = release.ref_event_id
 WHERE release.product = %(product)s AND release.ref = %(ref)s

-- name: attempts (prepared)
SELECT attempt.*, build.target, build.phases AS planned, attempt.not_before > now() AS pauses
  FROM cleanroom.build JOIN cleanroom.attempt ON attempt.build_id = build.id
 WHERE build.release_id = %(release)s
 ORDER BY build.id, attempt.number

-- name: phases (prepared)
-- Each phase, and after it its replays.
SELECT * FROM cleanroom.phase WHERE attempt_id = ANY(%(attempts)s) ORDER BY attempt_id, position, replay

-- name: flaky (prepared)
-- The first few cases of each phase that were replayed and failed at least once, those that are flaky first.
SELECT phase_id, step, name, outcome, runs, failures FROM (
    SELECT test_case.*, row_number() OVER (PARTITION BY phase_id ORDER BY test_case.outcome <> 'flaky', test_case.id) AS place
      FROM cleanroom.phase JOIN cleanroom.test_case ON test_case.phase_id = phase.id
     WHERE phase.attempt_id = ANY(%(attempts)s) AND phase.replay = 0 AND phase.runs IS NOT NULL
       AND test_case.failures > 0
) AS ranked WHERE place <= %(limit)s ORDER BY phase_id, place

-- name: steps (prepared)
SELECT step.* FROM cleanroom.step JOIN cleanroom.phase ON phase.id = step.phase_id
 WHERE phase.attempt_id = ANY(%(attempts)s)
 ORDER BY step.phase_id, step.position

-- name: failing (prepared)
-- Of each phase the first cases that did not pass.
SELECT phase_id, step, name, outcome, seconds, message, line FROM (
    SELECT test_case.*, row_number() OVER (PARTITION BY phase_id ORDER BY test_case.id) AS place
      FROM cleanroom.phase JOIN cleanroom.test_case ON test_case.phase_id = phase.id
     WHERE phase.attempt_id = ANY(%(attempts)s) AND test_case.outcome NOT IN ('passed', 'skipped')
) AS failing WHERE place <= %(most)s ORDER BY phase_id, place

-- name: artifacts (prepared)
SELECT * FROM cleanroom.artifact WHERE attempt_id = ANY(%(attempts)s) ORDER BY attempt_id, file

-- name: published (prepared)
SELECT publication.channel, publication.generation, generation.switched_at AS at
  FROM cleanroom.publication JOIN cleanroom.generation ON generation.number = publication.generation
 WHERE publication.release_id = %(release)s AND publication.state = 'published'
 ORDER BY publication.id

-- name: removed (prepared)
-- The channels that had it and have it no more.
SELECT DISTINCT ON (gone.channel) gone.channel, gone.removed_in AS generation, gone.removal, gone.why,
       generation.switched_at AS at
  FROM cleanroom.channel_release AS gone
  JOIN cleanroom.generation ON generation.number = gone.removed_in AND generation.switched_at IS NOT NULL
 WHERE gone.release_id = %(release)s
   AND NOT EXISTS (SELECT FROM cleanroom.channel_release AS there
                    WHERE there.release_id = gone.release_id AND there.channel = gone.channel
                      AND there.id > gone.id)
 ORDER BY gone.channel, gone.id DESC

-- name: security_fix (prepared)
SELECT evidence FROM cleanroom.security_fix WHERE release_id = %(release)s
