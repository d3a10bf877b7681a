-- Outcomes are ranked: 1 it did not run, 2 it passed, 3 flaky, 4 it failed. Of several cases of one name the worst
-- counts. What did not run is as if it were not there: a failing test that is skipped is gone, not fixed.

-- name: find
SELECT * FROM cleanroom.release WHERE product = %(product)s AND ref = %(ref)s

-- name: releases_builds
-- The last attempt of each build that says something about the product.
SELECT DISTINCT ON (build.target) build.target, attempt.id AS attempt
  FROM cleanroom.build
  LEFT JOIN cleanroom.attempt ON attempt.build_id = build.id
        AND attempt.outcome IN ('passed', 'failed', 'regressed', 'flaky', 'skipped')
 WHERE build.release_id = %(release)s
 ORDER BY build.target, attempt.number DESC NULLS LAST

-- name: room
-- Two releases with 100,000 cases each fit; with the server's default of 4 MB they are sorted on its disk.
SET LOCAL work_mem = '64MB'

-- name: cases
WITH pair AS MATERIALIZED (
    SELECT * FROM unnest(%(targets)s::text[], %(before)s::bigint[], %(now)s::bigint[]) AS pair (target, before, now)
), place AS MATERIALIZED (
    SELECT pair.target, phase.name AS phase, phase.id, false AS later
      FROM pair JOIN cleanroom.phase ON phase.attempt_id = pair.before AND phase.replay = 0
    UNION ALL
    SELECT pair.target, phase.name, phase.id, true
      FROM pair JOIN cleanroom.phase ON phase.attempt_id = pair.now AND phase.replay = 0
), known AS (
    -- One pass over both: to group each and join them takes half as long again.
    SELECT place.target, place.phase, test_case.step, test_case.name,
           max(ranked.rank) FILTER (WHERE NOT place.later) AS before,
           max(ranked.rank) FILTER (WHERE place.later) AS now,
           max(test_case.seconds) FILTER (WHERE NOT place.later) AS seconds_before,
           max(test_case.seconds) FILTER (WHERE place.later) AS seconds,
           max(test_case.message) FILTER (WHERE place.later AND ranked.rank = 4) AS message
      FROM place
      JOIN cleanroom.test_case ON test_case.phase_id = place.id
     CROSS JOIN LATERAL (SELECT CASE test_case.outcome WHEN 'failed' THEN 4 WHEN 'regressed' THEN 4 WHEN 'flaky' THEN 3
                                                       WHEN 'passed' THEN 2 ELSE 1 END AS rank) AS ranked
     GROUP BY place.target, place.phase, test_case.step, test_case.name
), compared AS MATERIALIZED (
    SELECT target, phase, step, name, coalesce(before, 0) AS before, coalesce(now, 0) AS now, seconds_before, seconds,
           message,
           CASE WHEN coalesce(before, 1) = 1 AND coalesce(now, 1) = 1 THEN 'same'
                WHEN coalesce(before, 1) = 1 THEN 'new'
                WHEN coalesce(now, 1) = 1 THEN 'gone'
                WHEN now = 4 AND before = 4 THEN 'still failing'
                WHEN now = 4 THEN 'regressed'
                WHEN now = 3 THEN 'flaky'
                WHEN before = 4 THEN 'fixed'
                ELSE 'same' END AS change
      FROM known
), listed AS (
    SELECT *, row_number() OVER (PARTITION BY change ORDER BY target COLLATE "C", phase COLLATE "C",
                                 step COLLATE "C", name COLLATE "C") AS place
      FROM compared WHERE change <> 'same' OR %(all)s
), slowest AS (
    SELECT * FROM compared
     WHERE change = 'same' AND before = 2 AND now = 2 AND seconds >= %(floor)s AND seconds > seconds_before
     ORDER BY seconds - seconds_before DESC LIMIT %(slowest)s
)
SELECT 'count' AS kind, target, phase, NULL AS step, NULL AS name, change, count(*)::integer AS before, 0 AS now,
       NULL::double precision AS seconds_before, NULL::double precision AS seconds, NULL AS message
  FROM compared GROUP BY target, phase, change
UNION ALL
SELECT 'case', target, phase, step, name, change, before, now, seconds_before, seconds, left(message, 500)
  FROM listed WHERE place <= %(limit)s
UNION ALL
SELECT 'candidate', target, phase, step, name, change, before, now, seconds_before, seconds, NULL FROM slowest

-- name: earlier_seconds
-- How long cases took in earlier runs of the product on the same target, when they passed: newest first.
WITH candidate AS MATERIALIZED (
    SELECT * FROM unnest(%(targets)s::text[], %(phases)s::text[], %(steps)s::text[], %(names)s::text[])
                  WITH ORDINALITY AS candidate (target, phase, step, name, number)
), run AS MATERIALIZED (
    SELECT target, attempt, place FROM (
        SELECT build.target, attempt.id AS attempt,
               row_number() OVER (PARTITION BY build.target ORDER BY attempt.id DESC) AS place
          FROM cleanroom.release
          JOIN cleanroom.build ON build.release_id = release.id
          JOIN cleanroom.attempt ON attempt.build_id = build.id
         WHERE release.product = %(product)s AND release.id < %(release)s AND build.target = ANY(%(targets)s)
           AND attempt.outcome IN ('passed', 'failed', 'regressed', 'flaky')
    ) AS ranked WHERE place <= %(runs)s
)
SELECT candidate.number, array_agg(found.seconds ORDER BY run.place) AS seconds
  FROM candidate
  JOIN run ON run.target = candidate.target
  JOIN cleanroom.phase ON phase.attempt_id = run.attempt AND phase.name = candidate.phase AND phase.replay = 0
 CROSS JOIN LATERAL (
    SELECT max(test_case.seconds) AS seconds FROM cleanroom.test_case
     WHERE test_case.phase_id = phase.id AND md5(test_case.name)::uuid = md5(candidate.name)::uuid
       AND test_case.name = candidate.name AND test_case.step = candidate.step AND test_case.outcome = 'passed'
 ) AS found
 WHERE found.seconds IS NOT NULL
 GROUP BY candidate.number

-- name: phases
-- Phases, and with a step's name their steps. A phase or step that only one of both has is there once.
WITH pair AS (
    SELECT * FROM unnest(%(targets)s::text[], %(before)s::bigint[], %(now)s::bigint[]) AS pair (target, before, now)
), part AS (
    SELECT attempt_id, name AS phase, NULL AS step, outcome, why, seconds, position, -1 AS inner_position
      FROM cleanroom.phase WHERE attempt_id = ANY(%(before)s || %(now)s) AND replay = 0
    UNION ALL
    SELECT phase.attempt_id, phase.name, step.name, step.outcome, step.why, step.seconds, phase.position, step.position
      FROM cleanroom.phase JOIN cleanroom.step ON step.phase_id = phase.id
     WHERE phase.attempt_id = ANY(%(before)s || %(now)s) AND phase.replay = 0
), earlier AS (
    SELECT pair.target, part.* FROM pair JOIN part ON part.attempt_id = pair.before
), later AS (
    SELECT pair.target, part.* FROM pair JOIN part ON part.attempt_id = pair.now
)
SELECT coalesce(later.target, earlier.target) AS target, coalesce(later.phase, earlier.phase) AS phase,
       coalesce(later.step, earlier.step) AS step, earlier.outcome AS before, later.outcome AS now,
       coalesce(later.why, '') AS why, earlier.seconds AS seconds_before, later.seconds
  FROM earlier FULL JOIN later
    ON later.target = earlier.target AND later.phase = earlier.phase
   AND coalesce(later.step, '') = coalesce(earlier.step, '')
 ORDER BY 1, coalesce(later.position, earlier.position), coalesce(later.inner_position, earlier.inner_position)

-- name: base
-- The release to compare one with on one target: the last that is published in its channel, or the one before it.
SELECT release.*
  FROM cleanroom.release
  JOIN cleanroom.build ON build.release_id = release.id AND build.target = %(target)s
 WHERE release.product = %(product)s AND release.channel = %(channel)s AND release.id <> %(release)s
   AND release.state <> 'withdrawn'
   AND (NOT %(published)s OR EXISTS (
        SELECT 1 FROM cleanroom.publication
         WHERE publication.release_id = release.id AND publication.channel = release.channel
           AND publication.state = 'published'))
   AND (%(published)s OR (release.id < %(release)s AND EXISTS (
        SELECT 1 FROM cleanroom.attempt WHERE attempt.build_id = build.id
           AND attempt.outcome IN ('passed', 'failed', 'regressed', 'flaky', 'skipped'))))
 ORDER BY (CASE WHEN %(published)s THEN (SELECT publication.generation FROM cleanroom.publication
            WHERE publication.release_id = release.id AND publication.channel = release.channel
              AND publication.state = 'published') END) DESC NULLS LAST, release.id DESC
 LIMIT 1

-- name: published_in
-- The release of a product that came last into a channel and is there, on one target.
SELECT release.*
  FROM cleanroom.release
  JOIN cleanroom.build ON build.release_id = release.id AND build.target = %(target)s
  JOIN cleanroom.channel_release AS there ON there.release_id = release.id
 WHERE release.product = %(product)s AND there.channel = %(channel)s AND there.removed_in IS NULL
   AND release.id <> %(release)s
 ORDER BY there.added_in DESC, release.id DESC LIMIT 1

-- name: get
SELECT * FROM cleanroom.release WHERE id = %(release)s

-- name: subject
-- An attempt with its release.
SELECT release.id, release.product, release.ref, release.commit, release.version, release.channel, build.target
  FROM cleanroom.attempt
  JOIN cleanroom.build ON build.id = attempt.build_id
  JOIN cleanroom.release ON release.id = build.release_id
 WHERE attempt.id = %(attempt)s

-- name: record
INSERT INTO cleanroom.comparison
    (attempt_id, base, against, regressed, fixed, still_failing, flaky, new, gone, slower, same, phases, names)
VALUES (%(attempt)s, %(base)s, %(against)s, %(regressed)s, %(fixed)s, %(still_failing)s, %(flaky)s, %(new)s, %(gone)s,
        %(slower)s, %(same)s, %(phases)s, %(names)s)
ON CONFLICT DO NOTHING

-- name: explain_phase
UPDATE cleanroom.phase
   SET outcome = 'regressed',
       why = %(why)s || CASE WHEN runs IS NULL THEN '' ELSE format('; failed %%s of %%s times', failures, runs) END
 WHERE attempt_id = %(attempt)s AND name = %(phase)s AND outcome = 'failed' AND replay = 0
RETURNING why

-- name: why
SELECT why FROM cleanroom.attempt WHERE id = %(attempt)s

-- name: explain_attempt
UPDATE cleanroom.attempt SET outcome = 'regressed', why = %(why)s WHERE id = %(attempt)s AND outcome = 'failed'

-- name: recorded (prepared)
SELECT comparison.*, build.target, against.ref AS against_ref, against.version AS against_version
  FROM cleanroom.comparison
  JOIN cleanroom.attempt ON attempt.id = comparison.attempt_id
  JOIN cleanroom.build ON build.id = attempt.build_id
  LEFT JOIN cleanroom.release AS against ON against.id = comparison.against
 WHERE comparison.attempt_id = ANY(%(attempts)s)
 ORDER BY build.id, comparison.base
