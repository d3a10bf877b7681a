-- name: releases
-- The latest releases that have ended, oldest first, with how long each took and how its tests went.
SELECT recent.product, recent.ref, recent.state, recent.created_at, built.seconds AS build_seconds,
       built.passed, built.failed, left_at.seconds AS published_seconds
  FROM (SELECT * FROM cleanroom.release
         WHERE finished_at IS NOT NULL
         ORDER BY id DESC LIMIT %(limit)s) AS recent
 CROSS JOIN LATERAL (
       SELECT max(extract(epoch FROM attempt.finished_at - attempt.started_at))::double precision AS seconds,
              coalesce(sum(tested.passed), 0)::bigint AS passed, coalesce(sum(tested.failed), 0)::bigint AS failed
         FROM cleanroom.build
         JOIN cleanroom.attempt ON attempt.build_id = build.id AND attempt.finished_at IS NOT NULL
        CROSS JOIN LATERAL (
              SELECT sum(phase.tests_passed) AS passed, sum(phase.tests_failed) AS failed
                FROM cleanroom.phase WHERE phase.attempt_id = attempt.id AND phase.replay = 0) AS tested
        WHERE build.release_id = recent.id) AS built
  LEFT JOIN LATERAL (
       SELECT extract(epoch FROM min(generation.switched_at) - event.recorded_at)::double precision AS seconds
         FROM cleanroom.ref_event AS event, cleanroom.channel_release AS there
         JOIN cleanroom.generation ON generation.number = there.added_in
        WHERE there.release_id = recent.id AND event.id = recent.ref_event_id
        GROUP BY event.recorded_at) AS left_at ON true
 ORDER BY recent.id

-- name: releases_of (prepared)
-- The same of one product.
SELECT recent.product, recent.ref, recent.state, recent.created_at, built.seconds AS build_seconds,
       built.passed, built.failed, left_at.seconds AS published_seconds
  FROM (SELECT * FROM cleanroom.release
         WHERE finished_at IS NOT NULL AND product = %(product)s
         ORDER BY id DESC LIMIT %(limit)s) AS recent
 CROSS JOIN LATERAL (
       SELECT max(extract(epoch FROM attempt.finished_at - attempt.started_at))::double precision AS seconds,
              coalesce(sum(tested.passed), 0)::bigint AS passed, coalesce(sum(tested.failed), 0)::bigint AS failed
         FROM cleanroom.build
         JOIN cleanroom.attempt ON attempt.build_id = build.id AND attempt.finished_at IS NOT NULL
        CROSS JOIN LATERAL (
              SELECT sum(phase.tests_passed) AS passed, sum(phase.tests_failed) AS failed
                FROM cleanroom.phase WHERE phase.attempt_id = attempt.id AND phase.replay = 0) AS tested
        WHERE build.release_id = recent.id) AS built
  LEFT JOIN LATERAL (
       SELECT extract(epoch FROM min(generation.switched_at) - event.recorded_at)::double precision AS seconds
         FROM cleanroom.ref_event AS event, cleanroom.channel_release AS there
         JOIN cleanroom.generation ON generation.number = there.added_in
        WHERE there.release_id = recent.id AND event.id = recent.ref_event_id
        GROUP BY event.recorded_at) AS left_at ON true
 ORDER BY recent.id

-- name: resets (prepared)
-- The latest resets of guests, oldest first.
SELECT * FROM (
       SELECT id, isolation, reset_method AS method, reset_seconds AS seconds, started_at FROM cleanroom.phase
        WHERE reset_seconds IS NOT NULL ORDER BY id DESC LIMIT %(limit)s) AS recent
 ORDER BY id

-- name: images (prepared)
-- The images in which the latest phases ran, the newest of each name first.
SELECT image, image_digest AS digest, min(started_at) AS first_at, max(started_at) AS last_at, count(*) AS phases,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY reset_seconds) AS reset_seconds
  FROM (SELECT * FROM cleanroom.phase WHERE image IS NOT NULL ORDER BY id DESC LIMIT %(limit)s) AS recent
 GROUP BY image, image_digest ORDER BY image, max(started_at) DESC

-- name: targets (prepared)
-- The targets of the latest builds, and how those went.
SELECT target, count(*) AS builds, count(*) FILTER (WHERE outcome IN ('passed', 'skipped')) AS passed,
       count(*) FILTER (WHERE outcome IN ('failed', 'regressed')) AS failed, max(started_at) AS last_at
  FROM (SELECT build.target, attempt.outcome, attempt.started_at
          FROM cleanroom.attempt JOIN cleanroom.build ON build.id = attempt.build_id
         WHERE build.release_id IS NOT NULL
         ORDER BY attempt.id DESC LIMIT %(limit)s) AS recent
 GROUP BY target ORDER BY count(*) DESC, target LIMIT %(most)s

-- name: restless (prepared)
-- Cases of the latest releases of a product that failed or were flaky, the most often first.
WITH recent AS (
    SELECT id FROM cleanroom.release WHERE product = %(product)s ORDER BY id DESC LIMIT %(releases)s
)
SELECT test_case.name, count(*) FILTER (WHERE test_case.outcome IN ('failed', 'regressed')) AS failed,
       count(*) FILTER (WHERE test_case.outcome = 'flaky') AS flaky, max(attempt.finished_at) AS last_at
  FROM recent
  JOIN cleanroom.build ON build.release_id = recent.id
  JOIN cleanroom.attempt ON attempt.build_id = build.id
  JOIN cleanroom.phase ON phase.attempt_id = attempt.id AND phase.replay = 0
  JOIN cleanroom.test_case ON test_case.phase_id = phase.id AND test_case.outcome NOT IN ('passed', 'skipped')
 GROUP BY test_case.name
 ORDER BY count(*) DESC, max(attempt.finished_at) DESC NULLS LAST, test_case.name LIMIT %(limit)s
